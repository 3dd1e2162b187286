# A type that there is none of, and --type alone.
. "$CASES/history.bash"
history_of_three
status qallow replay work.tlog --events --type page,cat
status qallow replay work.tlog --type page
status qallow replay work.tlog --events --epoch 9
