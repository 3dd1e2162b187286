# Names, attributes and byte ranges; 1 if there are any.
. "$CASES/history.bash"
history_of_three
status qallow replay work.tlog --diff 1..2
status qallow replay work.tlog --diff 2..3
status qallow replay work.tlog --diff second..
status qallow replay work.tlog --diff 1..3 --stat
status qallow replay work.tlog --diff 3..1 --stat
status qallow replay work.tlog --diff 0..1 --stat
status qallow replay work.tlog --diff 2..2
status qallow replay work.tlog --diff 2..9
status qallow replay work.tlog --diff 2..nothing
status qallow replay work.tlog --diff 2
status qallow replay work.tlog --diff 0..99999999999999999999
