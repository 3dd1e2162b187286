# A flipped bit in what had been durable: refused, found, and stepped over with --salvage.
. "$CASES/history.bash"
mkdir tree
head -c 3000 /dev/zero | tr '\0' a >tree/first
stamp 1 tree/first
record
for n in 2 3 4 5; do
    head -c 3000 /dev/zero | tr '\0' "$n" >"tree/file$n"
    stamp "$n" "tree/file$n"
    record
done
qallow checkpoint verify work.tlog >/dev/null
# a byte in the frame of epoch 3
offset=$(grep -abo 3333333333 work.tlog | head -1 | cut -d: -f1)
printf X | dd of=work.tlog bs=1 seek=$((offset + 5)) conv=notrunc status=none
rm -f work.tlog-index
before=$(sha256sum <work.tlog)
status qallow replay work.tlog
status qallow replay work.tlog --verify
status qallow checkpoint verify work.tlog
status qallow replay work.tlog --salvage --list --quiet
status qallow replay work.tlog --salvage -e 2 -o two
ls two
status qallow replay work.tlog --salvage -e 5 -o five
[ "$before" = "$(sha256sum <work.tlog)" ] && echo 'the log is as it was'
