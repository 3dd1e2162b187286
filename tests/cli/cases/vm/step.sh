# A machine under commands, forward and back, also across ticks; what was recorded stays.
cp "$CASES/deep.qvm" .
status qallow vm deep.qvm --step --log run.tlog <<'END'
s
s 3
b
b 2
t
t
p squares
b
b 9
p squares 1
s 100
t
r
b 100
p nothing
p halves
x
t
t
t
t
t
t
s
q
END
qallow replay run.tlog | wc -l
status qallow vm --check run.tlog
echo "--- without a log"
printf 's 4\nb\nt\nb\ns\n' | status qallow vm deep.qvm --step
status qallow vm deep.qvm --step --counts
