# Functions that are defined anew while the machine runs: --patch, the world's age, old definitions.
cat >run.qvm <<'END'
.page squares u64 4
.page total u64 1
.func main
again:
    li r0, 3
    call r1, fill
    emit total, r1
    jmp again
.func fill
    li   r1, 0
next:
    mov  r2, r1
    call r2, square
    commit
    addi r1, r1, 1
    jlti r1, 4, next
    reduce.add.u64 r0, squares
    ret
.func square 1
    mul  r1, r0, r0
    st.64 r1, squares[r0]
    emit square, r1
    ret
.func unused 2
    mov r0, r1
    ret
END
sed -e 's/mul  r1, r0, r0/mul r1, r0, r0\n mul r1, r1, r0/' -e '/.func unused/,$d' run.qvm >cube.qvm
# other numbers for everything, other labels, the same functions but one
{
    echo '.page more f32 2'
    echo '.func aside'
    echo '    emit aside, r0'
    echo '    ret'
    sed -e 's/addi r1, r1, 1/addi r1, r1, 2/' -e 's/next/onwards/' cube.qvm
} >two.qvm
text() { qallow replay "$@" --page program.qvm | sed -n '/^.world/,$p'; }
same=(--uuid 00112233445566778899aabbccddeeff --clock logical)

echo "--- before the first tick nothing is in progress"
qallow vm run.qvm --ticks 0 --log early.tlog "${same[@]}"
qallow vm --resume early.tlog --patch cube.qvm --ticks 2
status qallow vm --check early.tlog

echo "--- a function that is not in progress"
qallow vm run.qvm --ticks 3 --log run.tlog "${same[@]}" | tail -n 1
qallow vm --resume run.tlog --patch cube.qvm --ticks 2
qallow replay run.tlog --page code/square | od -An -tu4 -N16
qallow replay run.tlog --page code/main | od -An -tu4 -N16
qallow replay run.tlog --page code/unused | wc -c
qallow replay run.tlog --epoch 4 --page code/unused | wc -c

echo "--- one that is: the old definition stays until its call is over"
qallow vm --resume run.tlog --patch two.qvm --ticks 0
text run.tlog
qallow vm --resume run.tlog --ticks 1 --counts
qallow replay run.tlog | sed 1q
qallow vm --resume run.tlog --ticks 1
text run.tlog
qallow vm --resume run.tlog --ticks 2
text run.tlog
status qallow vm --check run.tlog --json
status qallow vm --check run.tlog

echo "--- branches from everywhere give what the log has"
last=$(qallow vm --resume run.tlog --ticks 0 --json | sed -n 's/.*"epoch":\([0-9]*\).*/\1/p')
digest() { qallow replay "$1" --list --json | grep -o '"digest":"[0-9a-f]*"' | tail -n "$2"; }
for ((epoch = 1; epoch < last; epoch++)); do
    qallow vm --resume run.tlog --epoch $epoch --log b$epoch.tlog --ticks 0 >/dev/null
    cmp <(digest b$epoch.tlog 1) <(digest run.tlog $((last - epoch + 1)) | head -n 1)
    qallow vm --resume b$epoch.tlog --ticks 2 >/dev/null
    qallow vm --check b$epoch.tlog
done
for epoch in 8 9 10; do # behind the last patch: ticks only
    cmp <(digest b$epoch.tlog 1) <(digest run.tlog $((last - epoch - 1)) | head -n 1)
done
echo "--- the same patch on a branch from before it gives the same"
qallow vm --resume run.tlog --epoch 4 --log again.tlog --patch cube.qvm --ticks 2 | tail -n 1

echo "--- a halted machine, and a text from a log"
qallow vm "$CASES/../../../../examples/fib.qvm" --log fib.tlog
qallow replay run.tlog --page program.qvm >with-world.qvm
sed 's/r0, 25/r0, 24/' "$CASES/../../../../examples/fib.qvm" >fib24.qvm
qallow vm --resume fib.tlog --patch fib24.qvm --json
qallow vm --check fib.tlog
qallow vm --resume run.tlog --patch with-world.qvm --ticks 1
qallow vm --check run.tlog

echo "--- a log whose first epochs are gone"
qallow replay run.tlog --epoch 8 | head -n 4
qallow replay run.tlog --epoch 8 --json | grep -o '"world":[0-9]*'
cp run.tlog pruned.tlog
qallow checkpoint prune pruned.tlog --keep-epochs 6 >/dev/null
qallow vm --check pruned.tlog
sed 's/aside/beside/' two.qvm >three.qvm
qallow vm --resume pruned.tlog --patch three.qvm --ticks 2 | head -n 4
qallow vm --check pruned.tlog
for i in {1..90}; do echo b 1; done | qallow vm --resume pruned.tlog --step | tail -n 2

echo "--- what does not fit leaves everything as it was"
cp run.tlog before.tlog
sed 's/u64 4/u64 5/' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
sed '/^.page total/d' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
sed -e 's/func fill/func filled/' -e 's/, fill/, filled/' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
sed -e 's/func square 1/func square 2/' -e 's/addi r1, r1, 2/addi r1, r1, 3/' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
sed -e 's/square\b/quad/' -e 's/addi r1, r1, 2/addi r1, r1, 3/' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
sed 's/call r2, square/call r2, nobody/' two.qvm >bad.qvm
status qallow vm --resume run.tlog --patch bad.qvm
{
    echo .depth 1
    cat two.qvm
} >shallow.qvm
qallow vm "$CASES/deep.qvm" --ticks 2 --log deep.tlog | tail -n 1
{
    echo .depth 1
    cat "$CASES/deep.qvm"
} >shallow.qvm
status qallow vm --resume deep.tlog --patch shallow.qvm
status qallow vm --resume run.tlog --patch missing.qvm
status qallow vm run.qvm --patch two.qvm
cmp run.tlog before.tlog && echo "as it was"
for line in '.world 0' '.func main@0' '.world 2\n.func x' '.world 2\n.page p u8 1' \
    '.world 2\n.func main@2' '.world 2\n.func nobody@1' '.world 2\n.age nobody 1' \
    '.world 2\n.age main 3' '.world 2\n.world 3' '.world 2\nnop' '.func main@' \
    '.world 2\n.func main@1\ncall r1, main@1'; do
    printf '.func main\nhalt\n%b\nhalt\n' "$line" >p.qvm
    status qallow vm p.qvm --verify
done
