# Logs that are read back: ticks with more fuel than the program says, machines that are too large,
# calls without end.
cat >loop.qvm <<'QVM'
.fuel 10
.page p u8 1M
.page count u64 1
.node sum u64 1 add whole count
.func main
    ld.64 r1, count[r0]
next:
    addi r1, r1, 1
    jlti r1, 100, next
    st.64 r1, count[r0]
    commit
    st.64 r0, count[r0]
    commit
    halt
.func add of out u64, in u64
    li r2, 0
again:
    addi r2, r2, 1
    jlti r2, 100, again
    ld.64 r3, in[r0]
    st.64 r3, out[r0]
    ret
QVM
status qallow vm loop.qvm
qallow vm loop.qvm --log loop.tlog --fuel 1000 | cut -d, -f1-3
status qallow vm --check loop.tlog
status qallow vm --check loop.tlog --fuel 1000
status qallow vm --check loop.tlog --max-memory 1M
status qallow vm --resume loop.tlog --max-memory 1M
status qallow vm loop.qvm --fuel 1000 --max-memory 1M
status qallow replay loop.tlog --epoch 1 --max-memory 8M

echo "--- 5 GiB that nobody touches"
cat >large.qvm <<'QVM'
.memory 6G
.input d u8 5368709120
.func main
    commit
    halt
QVM
printf A >A
qallow vm large.qvm --input d=A --log large.tlog --ticks 1 | cut -d, -f1-3
status qallow vm --resume large.tlog
status qallow vm --check large.tlog
status qallow replay large.tlog --epoch 1
status qallow vm --check large.tlog --max-memory 6G

echo "--- calls"
cat >deep.qvm <<'QVM'
.depth 2000
.func main
    call r1, main2
    halt
.func main2 1
    addi r0, r0, 1
    mov r1, r0
    jgti r0, 1500, over
    call r1, main2
over:
    commit
    ret
QVM
qallow vm deep.qvm --log deep.tlog --ticks 1 | cut -d, -f1-3
qallow replay deep.tlog --epoch 2 | grep -v 'called from main2'
qallow replay deep.tlog --epoch 2 | grep -c 'called from main2'
qallow replay deep.tlog --epoch 2 --json | grep -o '"depth":[0-9]*'
qallow replay deep.tlog --epoch 2 --json | grep -o '"function"' | wc -l
