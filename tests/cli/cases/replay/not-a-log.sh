# Files that are something else, or not there.
status qallow replay missing.tlog
mkdir dir
status qallow replay dir
status qallow checkpoint verify dir
mkfifo pipe
status qallow replay pipe
status qallow checkpoint verify pipe
: >empty
status qallow replay empty
seq 10000 >foreign
status qallow replay foreign
cmp foreign <(seq 10000)
head -c 20000 /dev/zero >zeros
status qallow replay zeros
status qallow replay no/such/work.tlog
ls
