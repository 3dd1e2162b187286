# Stopping, resuming, branching; the same log every time, whatever kernels and threads.
life=$CASES/../../../../examples/life.qvm
same=(--uuid 00112233445566778899aabbccddeeff --clock logical)
qallow vm "$life" --ticks 8 --log a.tlog "${same[@]}" | tail -n 1
QALLOW_CPU_MASK=scalar qallow vm "$life" --ticks 8 --log b.tlog --threads 1 "${same[@]}" >b
QALLOW_CPU_MASK=avx2 qallow vm "$life" --ticks 8 --log c.tlog --threads 2 "${same[@]}" >c
cmp a.tlog b.tlog && cmp b.tlog c.tlog && echo "the same logs"

echo "--- five ticks and three"
qallow vm "$life" --ticks 5 --log d.tlog >d
qallow vm --resume d.tlog --ticks 3 | tail -n 1
status qallow vm --check d.tlog
status qallow vm --check d.tlog --json

echo "--- a branch"
status qallow vm --resume a.tlog --epoch 4 --ticks 5
status qallow vm --resume a.tlog --epoch 4 --ticks 5 --log branch.tlog
qallow replay branch.tlog --json | grep -o '"labels":[^]]*]' | head -n 1
status qallow vm --check branch.tlog
status qallow vm --resume a.tlog --epoch 99 --log other.tlog

echo "--- another seed, another life"
qallow vm "$life" --ticks 2 --seed 7 --log seven.tlog
qallow vm --resume seven.tlog --ticks 1 --json

echo "--- new inputs are an epoch"
cat >sum.qvm <<'END'
.input numbers u32 100
.func main
again:
    reduce.add.u32 r0, numbers
    emit sum, r0
    commit
    jmp again
END
printf '\1\0\0\0\2\0\0\0' >three
printf '\4\0\0\0' >four
qallow vm sum.qvm --input numbers=three --ticks 1 --log sum.tlog
qallow vm --resume sum.tlog --input numbers=four --ticks 1
status qallow vm --check sum.tlog
qallow replay sum.tlog --page data/numbers | od -An -tx1
qallow replay sum.tlog --epoch 2 --page data/numbers | od -An -tx1

echo "--- what the machine was like"
cp "$CASES/deep.qvm" .
qallow vm deep.qvm --log deep.tlog
qallow replay deep.tlog --epoch 4
qallow replay deep.tlog --epoch 6 --json

echo "--- looking at a run"
qallow vm deep.qvm --break square --log stopped.tlog
qallow vm deep.qvm --break fill.next --json | head -n 1 | cut -c 1-60
status qallow vm deep.qvm --break fill.nowhere
qallow vm deep.qvm --trace t.csv --counts --ticks 2
head -n 4 t.csv
qallow vm deep.qvm --trace t.jsonl --ticks 1
head -n 1 t.jsonl
python3 -c "
import json
print(len([json.loads(line) for line in open('t.jsonl')]), 'lines')"
status qallow vm deep.qvm --trace missing/t.csv
qallow replay stopped.tlog --json | tail -n 1 | grep -o '"epoch":[0-9]*'
