# Derived pages: a run, its log, patches, failures, and what is no such page.
cat >p.qvm <<'END'
.page  price f64 4
.data  price 1.0 2.0 3.0 4.0
.page  rate f64 1
.data  rate 1.5
.node  gross f64 4 scale elementwise price, whole rate
.node  total f64 1 add whole gross
.fuel  1000 100

.func main
again:
    ld.64 r1, total[r9]
    emit.f64 total, r1
    tick r2
    muli r3, r2, 10
    itof r3, r3
    st.64 r3, price[r2 - 1]
    commit
    jlti r2, 4, again
    halt

.func scale of out f64, in f64, by f64
    ld.64 r0, by[r1]
    vmul.f64 out, in, r0
    ret

.func add of out f64, in f64
    reduce.add.f64 r0, in
    jflt r0, r1, negative
    st.64 r0, out[r1]
    ret
negative:
    trap 3
END
status qallow vm p.qvm
status qallow vm p.qvm --log p.tlog --uuid 00112233445566778899aabbccddeeff --clock logical
qallow replay p.tlog --page data/gross --epoch 1 | od -An -tf8
status qallow vm --check p.tlog
status qallow vm --resume p.tlog --epoch 3 --log branch.tlog
qallow vm p.qvm --disassemble >again.qvm
qallow vm again.qvm --disassemble | cmp - again.qvm && echo "the same"

echo "--- metrics"
qallow vm p.qvm --ticks 3 --telemetry m.csv >out
cut -d , -f 2- m.csv | grep '^vm_' | grep -v 'seconds,[spm]'
status qallow vm p.qvm --telemetry missing/m.csv
status qallow vm --check p.tlog --telemetry m.csv

echo "--- why"
status qallow vm --resume p.tlog --explain total
status qallow vm --resume p.tlog --explain total --epoch 1
status qallow vm --resume p.tlog --explain gross --epoch 3 --json
status qallow vm --resume p.tlog --explain price
status qallow vm --resume p.tlog --explain nothing
status qallow vm --resume p.tlog --explain total --epoch 99
status qallow vm --resume p.tlog --explain total --ticks 5
status qallow vm p.qvm --explain total

echo "--- a patch, and why pages are as it made them"
sed -e 's/vmul.f64 out, in, r0/call r0, twice\n    vmul.f64 out, in, r0/' p.qvm >t.qvm
cat >>t.qvm <<'END'
.func twice 1 pure
    fadd r0, r0, r0
    ret
END
qallow vm t.qvm --ticks 1 --log t.tlog
sed 's/fadd r0, r0, r0/li r1, 0/' t.qvm >q.qvm
qallow vm --resume t.tlog --patch q.qvm --ticks 0
status qallow vm --resume t.tlog --explain total
status qallow vm --resume t.tlog --explain gross --json
sed 's/reduce.add/reduce.max/' q.qvm >r.qvm
qallow vm --resume t.tlog --patch r.qvm --ticks 1
status qallow vm --resume t.tlog --explain total --epoch 4
status qallow vm --resume t.tlog --explain total
echo "--- a patch"
sed 's/reduce.add/reduce.max/' p.qvm >q.qvm
status qallow vm --resume p.tlog --patch q.qvm --epoch 3 --log patched.tlog
status qallow vm --check patched.tlog
sed 's/rate 1.5/rate -1.5/' p.qvm >q.qvm

echo "--- failures"
status qallow vm q.qvm --log q.tlog
ls q.tlog 2>&1 | sed 's/.*: //'
sed 's/itof r3, r3/lc r3, -100.0/' p.qvm >q.qvm
status qallow vm q.qvm --log q.tlog
status qallow vm --check q.tlog
sed 's/reduce.add.f64 r0, in/add:\njmp add/' p.qvm >q.qvm
status qallow vm q.qvm
status qallow vm p.qvm --fuel 5

echo "--- a log of a run with more fuel than the program says needs none to be read"
cat >slow.qvm <<'END'
.page a u64 2
.page n u64 1
.data n 1000
.node b u64 2 slow elementwise a, whole n
.fuel 100 100
.func main
again:
    ld.64 r1, a[r9]
    addi r1, r1, 1
    st.64 r1, a[r9]
    commit
    jmp again
.func slow of out u64, in u64, n u64
    ld.64 r1, n[r9]
    vmov.u64 out, in
on:
    addi r1, r1, -1
    jgti r1, 0, on
    ret
END
same='--uuid 00112233445566778899aabbccddeeff --clock logical'
status qallow vm slow.qvm --ticks 3 --log slow.tlog $same
ls slow.tlog 2>&1 | sed 's/.*: //'
status qallow vm slow.qvm --ticks 3 --log slow.tlog $same --fuel 1M
status qallow vm --check slow.tlog
status qallow vm --check slow.tlog --fuel 1M
qallow replay slow.tlog --epoch 2 | head -n 1
status qallow vm --resume slow.tlog --explain b
printf 'b\nt\nt\n' | status qallow vm --resume slow.tlog --step
status qallow vm --resume slow.tlog --ticks 0
status qallow vm --resume slow.tlog --ticks 1
status qallow vm --resume slow.tlog --epoch 2 --log branch1.tlog --ticks 1 --fuel 10K
sed 's/vmov.u64/vneg.u64/' slow.qvm >neg.qvm
status qallow vm --resume slow.tlog --patch neg.qvm --ticks 1
status qallow vm --resume slow.tlog --patch neg.qvm --ticks 1 --fuel 1M
status qallow vm --check slow.tlog

echo "--- text"
page='.page a u32 10'
f='.func f of out u32, in u32\nret\n.func g 1\nret\n.func pi 1 pure\nret\n.func main\nhalt\n'
for line in '.node b u32 10 f' '.node b u32 10 f sideways a' '.node b u32 10 f whole b' \
    '.node b u32 10 g whole a' '.node b u32 10 pi whole a' '.node b u32 10 h whole a' \
    '.node b u64 10 f whole a' '.node b u32 10 f whole a, whole a' '.node b u32 10 f whole c' \
    '.page c u32 10\n.node b u32 10 f whole a, whole c' '.node b u32 11 f elementwise a' \
    '.node b u32 10 f blockwise a 0' '.node b u32 9 f blockwise a 4' '.node b u32 3 f window a 1' \
    '.node b u32 10 f whole a\n.data b 1' '.node b u32 10 f whole a\n.node c u64 10 f whole b' \
    '.func k of\nret' '.func k of a u32, a u32\nret' '.func k of a u32\nst.32 r0, b[r0]\nret' \
    '.func k of a u32, b u32\nst.32 r0, b[r0]\nret' '.func k pure\nld.u32 r0, a[r0]\nret' \
    '.func k of a u32\ncommit\nret' '.func k of a u32\ncall r0, g\nret' \
    '.func k of a u32\ncall r0, f\nret' '.func k\ncall r0, f\nret' '.func k pure of a u32\nret' \
    '.node b u32 10 f whole a\n.func k\nst.32 r0, b[r0]\nret' '.fuel 10 0' \
    '.node b u32 1M f window a 1T 1'; do
    printf "$page\n$line\n$f" >t.qvm
    status qallow vm t.qvm --verify
done
main='.func main\nhalt\n'
g='.func f of out u64, in u8\nret\n'
printf ".page a u8 10\n.node b u64 10 f blockwise a 8\n$g$main" >t.qvm
status qallow vm t.qvm --verify
printf ".page a u8 16\n.node b u64 2 f blockwise a 8\n$g$main" >t.qvm
status qallow vm t.qvm --verify
printf ".memory 5M\n.page a u8 1M\n.node b u64 128K f whole a\n$g$main" >t.qvm
status qallow vm t.qvm --verify

echo "--- watched"
qallow vm p.qvm --ticks 1 --trace t.csv --trace-events nodes,ticks --counts
cat t.csv
status qallow vm p.qvm --trace t.csv --trace-events nodes,tacks
status qallow vm p.qvm --trace-events nodes

echo "--- functions of pages cannot be stopped, and stepping goes around them"
for place in add add.negative add.nowhere main.again; do
    status qallow vm p.qvm --break $place --ticks 1
done
status qallow vm p.qvm --break scale --log stopped.tlog
ls stopped.tlog 2>&1 | sed 's/.*: //'
printf 't\nb\nb 2\nt\ns\n' | status qallow vm p.qvm --step --log stepped.tlog

echo "--- who wrote a page that is not derived"
qallow vm "$CASES/deep.qvm" --log deep.tlog | tail -n 1
for epoch in 1 2 4 6; do
    qallow vm --resume deep.tlog --explain squares --epoch $epoch
done
qallow vm --resume deep.tlog --explain squares --json
qallow vm --resume deep.tlog --explain halves
cat >in.qvm <<'END'
.input data u64 4
.page copy u64 4
.func main
again:
    call r1, take
    commit
    jmp again
.func take
    li r0, 2
    vmov.u64 copy, data for r0
    commit
    vmov.u64 copy, data for r0
    st.64 r0, copy[r0]
    ret
END
printf '\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0' >one
printf '\3\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0' >two
qallow vm in.qvm --input data=one --ticks 1 --log in.tlog
sed 's/li r0, 2/li r0, 1/' in.qvm >in1.qvm
qallow vm --resume in.tlog --patch in1.qvm --input data=two --ticks 1
for page in data copy; do
    for epoch in 1 2 3 4 5; do
        qallow vm --resume in.tlog --explain $page --epoch $epoch
    done
done
qallow vm --resume in.tlog --ticks 1
qallow vm --resume in.tlog --explain copy
