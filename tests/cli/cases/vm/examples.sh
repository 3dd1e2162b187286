# The programs in examples/: what they give, and the digest of their last epoch.
examples=$CASES/../../../../examples
printf 'The quick brown fox jumps over the lazy dog' >fox
for i in {1..9000}; do
    echo "line $i of a file that is a little larger than one tick takes"
done >file
for program in fib sieve; do
    status qallow vm "$examples/$program.qvm" --log $program.tlog
done
status qallow vm "$examples/crc32.qvm" --input data=fox --log crc32.tlog
status qallow vm "$examples/histogram.qvm" --input file=file --log histogram.tlog
status qallow vm "$examples/life.qvm" --ticks 20 --log life.tlog | tail -n 3
status qallow vm "$examples/nbody.qvm" --ticks 20 --log nbody.tlog | tail -n 3
work=(--uuid 00112233445566778899aabbccddee00 --clock logical --once --quiet)
readings() { # FILE NUMBER...: appended
    python3 -c 'import struct, sys
numbers = [float(text) for text in sys.argv[2:]]
open(sys.argv[1], "ab").write(struct.pack("<%df" % len(numbers), *numbers))' "$@"
}
mkdir sensors
readings sensors/north.f32 -3 -5 -1 4
qallow accelerator --watch sensors --log work "${work[@]}" >out
readings sensors/south.f32 1 2 3 4 5 6 7 8 9 10
qallow accelerator --watch sensors --log work "${work[@]}" >out
readings sensors/north.f32 7 {1..20}
qallow accelerator --watch sensors --log work "${work[@]}" >out
status qallow vm "$examples/sensors.qvm" --follow work --once --input north=north.f32 \
    --input south=south.f32 --log sensors.tlog
mkdir file.d
cp file file.d/file
qallow accelerator --watch file.d --log changes "${work[@]}" >out
printf 'X' | dd of=file.d/file bs=1 seek=400000 conv=notrunc status=none
qallow accelerator --watch file.d --log changes "${work[@]}" >out
status qallow vm "$examples/checksum.qvm" --follow changes --once --log checksum.tlog
qallow vm --resume checksum.tlog --explain adler32
python3 "$examples/spreadsheet.py" >sheet.qvm
status qallow vm sheet.qvm --ticks 30 --log sheet.tlog | tail -n 3
for log in *.tlog; do
    status qallow vm --check "$log"
done
python3 -c "
import zlib
print(zlib.crc32(open('fox', 'rb').read()), zlib.adler32(open('file', 'rb').read()),
    zlib.adler32(open('file.d/file', 'rb').read()))
import struct
north = struct.unpack('<25f', open('sensors/north.f32', 'rb').read())
print(sum(north[-8:]) / 8, max(north[-8:]), max(north[:3]))
balance, paid = 1000, [0] * 100
for tick in range(1, 30):
    paid[tick] = tick
for row in range(1000):
    balance = balance * 1.0001 + paid[row // 10]
print(balance)"
qallow replay sensors.tlog --page data/north_most | od -An -tf4 | head -n 1
