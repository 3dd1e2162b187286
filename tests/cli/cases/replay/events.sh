# What happened, from the log's own records.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --events --type page,delta,commit |
    grep -v 'page .* attributes' | sed -E 's/, size [0-9]+$//'
qallow replay work.tlog --events --epoch 2 --type commit
qallow replay work.tlog --events --type user,program,watcher
