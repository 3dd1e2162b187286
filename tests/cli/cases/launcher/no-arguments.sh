# Help goes to stderr and the status says wrong usage.
qallow
