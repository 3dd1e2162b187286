# Requests when nobody records: 69.
mkdir work
qallow accelerator --quiet --watch work --log work.tlog --once --clock logical
status qallow accelerator --sync --log work.tlog
status qallow accelerator --status --log nothing.tlog
status qallow accelerator --label x --log work.tlog
status qallow accelerator --stop --watch work
