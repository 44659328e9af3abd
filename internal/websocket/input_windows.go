package websocket

const canTryRead = false

func (in *input) tryRead(uintptr) bool { return false }
