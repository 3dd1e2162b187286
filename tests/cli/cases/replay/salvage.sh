# Behind the damage a keyframe gives the epochs back, without the files that the damage hit.
. "$CASES/history.bash"
mkdir tree
for n in 1 2 3 4; do
    seq $((n * 100000000)) $((n * 100000000 + 300000)) >"tree/f$n"
    stamp "$n" "tree/f$n"
    record
done
offset=$(grep -abo 200100000 work.tlog | head -1 | cut -d: -f1)
printf X | dd of=work.tlog bs=1 seek="$offset" conv=notrunc status=none
rm -f work.tlog-index
qallow replay work.tlog --salvage --quiet
status qallow replay work.tlog --salvage -e 1 -o one
status qallow replay work.tlog --salvage -e 4 -o four
ls one four
cmp four/f1 tree/f1
cmp four/f3 tree/f3
cmp four/f4 tree/f4
status qallow replay work.tlog --salvage -e 4 --page f2 | tail -1
