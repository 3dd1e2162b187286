# The default is --list.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog
qallow replay work.tlog --list --label second --quiet
