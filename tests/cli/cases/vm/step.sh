# A machine under commands, forward and back, also across ticks; what was recorded stays.
cp "$CASES/deep.qvm" .
status qallow vm deep.qvm --step --log run.tlog <<'END'
s
s 3
b
b 2
t
t
p squares
b
b 9
p squares 1
s 100
t
r
b 100
p nothing
p halves
x
t
t
t
t
t
t
s
q
END
qallow replay run.tlog | wc -l
status qallow vm --check run.tlog
echo "--- without a log"
printf 's 4\nb\nt\nb\ns\n' | status qallow vm deep.qvm --step
status qallow vm deep.qvm --step --counts

echo "--- back and forward over patches and new inputs"
cat >p.qvm <<'END'
.input data u64 4
.page sum u64 1
.func main
again:
    call r1, step
    emit sum, r1
    commit
    jmp again
.func step
    reduce.add.u64 r0, data
    ld.64 r1, sum[r2]
    add r0, r0, r1
    st.64 r0, sum[r2]
    ret
END
sed 's/add r0, r0, r1/add r0, r0, r1\n    addi r0, r0, 1000/' p.qvm >q.qvm
sed 's/jmp again/muli r3, r3, 2\n    jmp again/' q.qvm >r.qvm
printf '\1\0\0\0\0\0\0\0' >one
printf '\2\0\0\0\0\0\0\0' >two
qallow vm p.qvm --input data=one --ticks 2 --log p.tlog
qallow vm --resume p.tlog --patch q.qvm --input data=two --ticks 2
qallow vm --resume p.tlog --patch r.qvm --ticks 1
for i in {1..40}; do echo b 1; done >back
for i in {1..6}; do echo t; done >forward
cat back forward | qallow vm --resume p.tlog --step
qallow vm --check p.tlog
echo "--- inputs that changed between ticks, and more fuel than the program says"
cat >in.qvm <<'QVM'
.input d u8 4
.page p u8 4
.fuel 5
.func main
    li r0, 0
    nop
    nop
again:
    ld.u8 r1, d[r0]
    emit v, r1
    st.8 r1, p[r0]
    commit
    jmp again
QVM
printf AAAA >A
printf BBBB >B
printf CCCC >C
qallow vm in.qvm --input d=A --log in.tlog --ticks 2 --fuel 100 | tail -n 1 | cut -d, -f1-3
qallow vm --resume in.tlog --input d=B --ticks 0 | cut -d, -f1-3
qallow vm --resume in.tlog --input d=C --ticks 1 --fuel 100 | tail -n 1 | cut -d, -f1-3
printf 'b\nb 5\nb 100\nt\nt\nt\np p\nt\nq\n' | status qallow vm --resume in.tlog --step --fuel 100
status qallow vm --check in.tlog
qallow vm --resume in.tlog --epoch 5 --log branch.tlog --input d=A --ticks 0 >branch.txt
printf 'b\nt\nq\n' | status qallow vm --resume branch.tlog --step --fuel 100
echo "--- a log whose first epochs are gone"
qallow checkpoint prune in.tlog --keep-epochs 3 | head -n 1 | cut -d: -f1
printf 'b 100\nt\nq\n' | status qallow vm --resume in.tlog --step --fuel 100
status qallow vm --check in.tlog
echo "--- a tick that fails ends it, as it ends a run"
printf '.func main\nnop\ntrap 7\n' >trap.qvm
printf 't\ns\n' | status qallow vm trap.qvm --step

echo "--- numbers that are none, and as far back as there is"
printf 's 2\nb 18446744073709551615\ns 18446744073709551615\ns x\n' |
    status qallow vm deep.qvm --step --log far.tlog
printf 'b 99999999999999999999\n' | status qallow vm --resume far.tlog --step
