# The reference in the manual is that of the table, and what is disassembled is the same program.
root=$CASES/../../../..
diff <(qallow vm --reference) <(sed -n '/^| code/,$p' "$root/docs/vm.md") &&
    echo "docs/vm.md is current"
for program in "$root"/examples/*.qvm; do
    qallow vm "$program" --disassemble >once.qvm
    qallow vm once.qvm --disassemble >twice.qvm
    cmp once.qvm twice.qvm && qallow vm once.qvm --verify
done
qallow vm "$root/examples/sieve.qvm" --log a.tlog
qallow vm "$root/examples/fib.qvm" --disassemble
