// The interpreter inside Caddy: caddysnake.c starts it, thread.go calls it.
#ifndef CADDYSNAKE_H
#define CADDYSNAKE_H

// Loads the shared library of Python, starts its interpreter on a thread of its own and has it run `source` there.
// Returns when the interpreter is ready, NULL if it is, or what went wrong: one line, to be freed by the caller.
//
// library: the path of the shared library. program: the path of the interpreter that it belongs to, which decides
// sys.executable and with it the virtual environment. utf8_mode: 1 if Python is to be in its UTF-8 mode (PEP 540), else 0.
// source: a program that does not end.
//
// A process has one interpreter, for ever: do not call this again once it has succeeded.
char *caddysnake_start(const char *library, const char *program, int utf8_mode, const char *source);

#endif
