//go:build cgo

package caddysnake

// #cgo CFLAGS: -std=c11 -D_GNU_SOURCE
// #cgo !windows LDFLAGS: -ldl -lpthread
// #include <stdlib.h>
// #include "caddysnake.h"
import "C"

import (
	"errors"
	"unsafe"
)

// noThreads says why this Caddy cannot have workers that are threads, "" if it can.
const noThreads = ""

// startPython loads the shared library of Python and starts its interpreter, which runs source on a thread of its own.
// program is the interpreter that the library belongs to. It may succeed once in the life of a process.
func startPython(library, program string, utf8Mode bool, source string) error {
	words := [3]*C.char{C.CString(library), C.CString(program), C.CString(source)}
	defer func() {
		for _, word := range words {
			C.free(unsafe.Pointer(word))
		}
	}()
	var mode C.int
	if utf8Mode {
		mode = 1
	}
	if message := C.caddysnake_start(words[0], words[1], mode, words[2]); message != nil {
		defer C.free(unsafe.Pointer(message))
		return errors.New(C.GoString(message))
	}
	return nil
}
