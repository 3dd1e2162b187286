# --back begins one instruction back; d and e show the function and the epochs.
cat >c.qvm <<'EOF'
.page p u64 8
.func main
again:
    addi r0, r0, 1
    st.64 r0, p[r2]
    commit
    jmp again
EOF
qallow vm c.qvm --log c.tlog --ticks 4 --uuid 00112233445566778899aabbccddeeff --clock logical
printf 'd\ne\nb 3\ne\nt\n' | status qallow vm --resume c.tlog --back
# Nothing was recorded again.
qallow vm --check c.tlog
# Before the first instruction there is nothing, and without a log there are no epochs.
printf 'e\ns\nd\n' | status qallow vm c.qvm --back
status qallow vm c.qvm --back --trace x.csv
