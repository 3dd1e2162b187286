# The epoch that last made each byte differ; bytes move when others come before them.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --blame a.txt
qallow replay work.tlog --blame a.txt:7+8
qallow replay work.tlog --blame a.txt:7 --json
printf 'zero\none\ntwo and a half\nthree\n' >tree/a.txt
stamp 4 tree/a.txt
record
qallow replay work.tlog --blame a.txt
qallow replay work.tlog --blame a.txt -e 2
status qallow replay work.tlog --blame a.txt:1000
status qallow replay work.tlog --blame a.txt:99999999999999999999
status qallow replay work.tlog --blame a.txt:1+18446744073709551615
status qallow replay work.tlog --blame nothing
qallow checkpoint prune work.tlog --keep-epochs 2 --quiet
qallow replay work.tlog --blame a.txt
