# A log in which nothing has been recorded yet: an empty list, and nothing to restore.
head -c 0 /dev/null >excluded
qallow checkpoint save work.tlog excluded --quiet
head -c 8192 work.tlog >none.tlog
qallow replay none.tlog --quiet
qallow stats none.tlog | sed -n 2p
qallow checkpoint info none.tlog | sed -n 2p
qallow replay none.tlog --verify
status qallow replay none.tlog -o out
status qallow replay none.tlog --diff 0..1
ls
