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
for log in *.tlog; do
    status qallow vm --check "$log"
done
python3 -c "
import zlib
print(zlib.crc32(open('fox', 'rb').read()), zlib.adler32(open('file', 'rb').read()))"
