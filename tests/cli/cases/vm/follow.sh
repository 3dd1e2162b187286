# Inputs from another log, epoch by epoch, and from standard input as frames.
same=(--uuid 00112233445566778899aabbccddeeff --clock logical)
work=(--uuid 00112233445566778899aabbccddee00 --clock logical)
cat >sum.qvm <<'END'
.input a f32 1K
.node  sum f64 1 add whole a
.func main
again:
    ld.64 r0, sum[r1]
    emit.f64 sum, r0
    len r2, a
    emit n, r2
    commit
    jmp again
.func add of out f64, in f32
    reduce.add.f32 r0, in
    st.64 r0, out[r1]
    ret
END
write() { # FILE NUMBER...: appends
    python3 -c 'import struct, sys
numbers = [float(text) for text in sys.argv[2:]]
open(sys.argv[1], "ab").write(struct.pack("<%df" % len(numbers), *numbers))' "$@"
}
save() { qallow checkpoint save work.tlog d "${work[@]}" >out 2>&1; }
mkdir d
echo text >d/other
save
write d/x 1 2 3
save
echo more >>d/other
save
write d/x 4 5
printf xx >>d/x
save

echo "--- a log"
status qallow vm sum.qvm --follow work.tlog --once --input a=x --log run.tlog "${same[@]}"
status qallow vm --check run.tlog
status qallow vm --resume run.tlog --epoch 3 --log branch.tlog --follow work.tlog --once --input a=x
rm d/x
save
status qallow vm --resume run.tlog --follow work.tlog --once --input a=x
status qallow vm --resume run.tlog --follow work.tlog --once --input a=x
status qallow vm --check run.tlog

echo "--- while it is written"
status qallow vm sum.qvm --follow work.tlog --input a=x --ticks 5 --log live.tlog \
    "${same[@]}" >live &
for i in 1 2; do
    write d/x $i
    save
done
wait
status cat live
status qallow vm sum.qvm --follow work.tlog --once --input a=x --log later.tlog "${same[@]}" >later
cmp live.tlog later.tlog && echo "the same log, live and later"

echo "--- a program that has halted"
sed 's/jmp again/halt/' sum.qvm >halts.qvm
status qallow vm halts.qvm --follow work.tlog --once --input a=x --log halts.tlog
qallow replay halts.tlog --page data/sum | od -An -tf8

echo "--- a stream"
cat >frames.py <<'END'
import struct
import sys
def frame(kind, data=b''):
    sys.stdout.buffer.write(struct.pack('<BQI', ord(kind), 0, len(data)) + data)
def name(text, *rest):
    return bytes([len(text)]) + text.encode() + b''.join(rest)
def write(offset, *numbers):
    frame('w', name('a', struct.pack('<Q%df' % len(numbers), offset, *numbers)))
write(0, 1, 2, 3)
frame('t')
write(4, 10)
write(16, 7)
frame('t')
frame('s', name('a', struct.pack('<Q', 4)))
frame('t')
if len(sys.argv) > 1:
    exec(sys.argv[1])
END
python3 frames.py | status qallow vm sum.qvm --follow - --log stream.tlog
status qallow vm --check stream.tlog
python3 frames.py >frames
head -c 100 frames | status qallow vm --resume stream.tlog --follow -
for bad in 'frame("x")' 'frame("t", b"x")' 'frame("w", b"")' 'frame("w", name("b", bytes(12)))' \
    'write(5000)' 'write(2, 1)' 'frame("w", name("a", bytes(9)))' \
    'frame("s", name("a", bytes(9)))' 'frame("w", bytes(100000))'; do
    python3 frames.py "$bad" | status qallow vm sum.qvm --follow - | tail -n 1
done

echo "--- what is not possible"
status qallow vm sum.qvm --follow missing.tlog
status qallow vm sum.qvm --follow work.tlog --input b=x
status qallow vm --resume stream.tlog --follow work.tlog
qallow checkpoint save other.tlog d >out 2>&1
status qallow vm --resume run.tlog --follow other.tlog
status qallow vm sum.qvm --follow - --input a=x
status qallow vm sum.qvm --once
status qallow vm --check run.tlog --follow work.tlog
head -c 5000 /dev/zero >d/x
save
status qallow vm --resume run.tlog --follow work.tlog --once --input a=x
