# An empty name is most often a variable that was never set.
mkdir work
for option in watch file log telemetry prometheus export run label exclude cpu-mask; do
    status qallow accelerator --watch work --$option ''
    status qallow accelerator --watch work "--$option="
done
status qallow accelerator --watch work --get ''
ls -A . work
