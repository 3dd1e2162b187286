status qallow versoin
status qallow comp
status qallow frobnicate
status qallow help versio
status qallow 'with
newline'
