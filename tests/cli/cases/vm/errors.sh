# What cannot be run, and that it leaves nothing behind.
program() { cat >p.qvm; }
golden=$CASES/../../../golden
examples=$CASES/../../../../examples

echo "--- text"
program <<'END'
.page a u8 10
.func main
    li r1, 5
    ld.u8 r1, a[r300]
    halt
END
status qallow vm p.qvm --log p.tlog
status qallow vm p.qvm --verify --json
for line in 'ad r1, r2, r3' 'add r1, r2' 'jmp nowhere' 'call r0, nobody' 'li r1, 5000000000' \
    'li r1, 1.5' 'vadd.f16 a, a, a' 'vand.f32 a, a, a' 'vadd a, a, a' 'st.8 r1, data[r1]' \
    'ld.u8 r1, a[r1 + 99999]' 'vadd.u8 a, a, a for 5' 'li r1, 5 6' '.page r1 u8 10' \
    '.page a u8 10' '.data a 300' '.memory 4X' '.func main' 'emit 5, r1' '$' 'lc r1, 0x' \
    'trap' 'add r1, r2, r3' '.const x' '.bogus'; do
    printf '.page a u8 10\n.input data u8 10\n.func main\n%s\n' "$line" >p.qvm
    status qallow vm p.qvm --verify
done
: >p.qvm
status qallow vm p.qvm
printf '.memory 1K\n.page a u8 1M\n.func main\nhalt\n' >p.qvm
status qallow vm p.qvm
ls *.tlog 2>&1 | sed 's/.*: //'

echo "--- runs"
program <<'END'
.page a u8 10
.func main
    li r1, 7
    commit
    li r2, 3
    st.8 r2, a[r1]
    commit
again:
    ld.u8 r2, a[r1 + 3]
    jmp again
END
status qallow vm p.qvm --log p.tlog
status qallow vm --check p.tlog
printf '.func main\nagain: jmp again\n' >p.qvm
status qallow vm p.qvm --fuel 1000
printf '.func main\ncall r0, main\nhalt\n' >p.qvm
status qallow vm p.qvm
printf '.func main\ntrap 42\n' >p.qvm
status qallow vm p.qvm --json
status qallow vm p.qvm --log p.tlog
status qallow vm "$examples/crc32.qvm"
status qallow vm "$examples/crc32.qvm" --input data=missing
status qallow vm "$examples/crc32.qvm" --input other=p.qvm --input data=p.qvm
status qallow vm "$examples/crc32.qvm" --input data

echo "--- logs"
status qallow vm missing.qvm
status qallow vm --resume missing.tlog
status qallow vm --resume "$golden/kinds.tlog"
status qallow vm --check "$golden/kinds.tlog"
cp "$golden/damaged-data.tlog" damaged.tlog
status qallow vm --resume damaged.tlog
status qallow vm "$examples/fib.qvm" --log fib.tlog
status qallow vm --resume fib.tlog
status qallow vm --resume fib.tlog --epoch 1 --log fib.tlog

echo "--- usage"
status qallow vm
status qallow vm p.qvm --resume p.tlog
status qallow vm p.qvm --epoch 3
status qallow vm p.qvm --verify --ticks 3

echo "--- what is wrong shows before a log is made"
cp "$examples/crc32.qvm" c.qvm
printf 123456789 >data
bad() {
    status qallow vm c.qvm --log new.tlog "$@"
    [[ ! -e new.tlog && ! -e new.tlog.lock ]] || echo "a log is left behind"
}
bad --input data=missing
bad --input data=data --break nope
bad --input data=data --trace missing/x
bad --input data=data --trace x.csv --trace-events nope
bad --input data=data --telemetry missing/x
bad --input data=data --input data=p.qvm
mkfifo pipe
bad --input data=pipe
bad --input data=data --follow missing.tlog
status qallow vm pipe --input data=data
qallow vm c.qvm --input data=data --log new.tlog | head -n 1
qallow vm c.qvm --input data=data --log old.tlog --ticks 0 \
    --uuid 00112233445566778899aabbccddeeff --clock logical
cp old.tlog before.tlog
status qallow vm --resume old.tlog --epoch 1 --log branch.tlog --input data=missing
status qallow vm --resume old.tlog --epoch 1 --log branch.tlog --input data=p.qvm --break nope
status qallow vm --resume old.tlog --epoch 1 --log branch.tlog --patch p.qvm
status qallow vm --resume old.tlog --input data=p.qvm --break nope
[[ ! -e branch.tlog ]] && cmp old.tlog before.tlog && echo "as it was"

echo "--- what is no log, and no file"
mkdir folder
ln -s /dev/full full
for log in folder full missing/new.tlog old.tlog; do
    status qallow vm p.qvm --log $log
    ls $log.lock 2>&1 | sed 's/.*: //'
done
status qallow vm --resume folder
status qallow vm folder
status qallow vm c.qvm --input data=folder
cat /proc/version >version # which says that its size is 0
cmp <(qallow vm c.qvm --input data=/proc/version) <(qallow vm c.qvm --input data=version) &&
    echo "the same"
status qallow vm c.qvm --input data=data --trace full
head -c 1000000 /dev/urandom >random
(
    trap '' XFSZ # a disk on which there is no room for the first epoch
    ulimit -f 100
    status qallow vm c.qvm --input data=random --log large.tlog
)
ls large.tlog* 2>&1 | sed 's/.*: //'
