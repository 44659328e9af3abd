//go:build cgo

// Starts a Python interpreter inside Caddy. Python is not linked but loaded when it is needed, from the interpreter that
// the configuration names, so that one binary serves every version. For the same reason only functions of Python's C API
// are used: where a struct differs between versions, this file cannot know how.
//
// The interpreter runs on one thread that is made here; Python itself makes all others, so they inherit this one's signal
// mask. Python gets no handler of any signal (Py_InitializeEx(0)): they stay Go's, which is prepared to run on threads
// that it has not made. PYTHONFAULTHANDLER and PYTHONDEVMODE bring some all the same, of faults, which are taken away
// again: without Go's, a nil dereference that it would recover from ends Caddy. One signal is blocked: of a write to a
// closed pipe Go would take SIGPIPE to be meant for it, and end the process. Blocking more would be worse than that, since
// every process that an app starts would inherit it and could not be asked to end.

#include "caddysnake.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#endif
#ifdef __linux__
#include <malloc.h>
#endif
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

typedef struct init_config init_config; // PyInitConfig, of which only Python knows what is in it

// The functions of Python that are used.
static struct {
    int (*run)(const char *source, void *flags); // PyRun_SimpleStringFlags

    // Since 3.14 (PEP 741).
    init_config *(*config_new)(void);
    void (*config_free)(init_config *);
    int (*config_set_int)(init_config *, const char *name, int64_t value);
    int (*config_set_str)(init_config *, const char *name, const char *value);
    int (*config_error)(init_config *, const char **message);
    int (*config_start)(init_config *);

    // Before, and deprecated since 3.11.
    wchar_t *(*decode)(const char *text, size_t *length);
    void (*set_program)(const wchar_t *program);
    void (*start)(int handlers);
    int *utf8_mode; // Py_UTF8Mode
} python;

// What the starting thread and the interpreter's tell each other.
struct job {
    const char *program;
    int utf8_mode;
    char *source;
#ifdef _WIN32
    HANDLE done; // an event, after which error is set
#else
    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    int done;
#endif
    char *error;
};

static char *copy(const char *text) {
    char *made = strdup(text);
    if (made == NULL) {
        abort(); // as Go does without memory
    }
    return made;
}

static char *say(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    return copy(line);
}

#ifdef _WIN32

// Go's strings are UTF-8. The result is never freed: Python keeps the pointer to its program's name.
static wchar_t *widen(const char *text) {
    int size = MultiByteToWideChar(CP_UTF8, 0, text, -1, NULL, 0);
    wchar_t *wide = calloc((size_t)size + 1, sizeof *wide);
    if (wide == NULL) {
        abort();
    }
    MultiByteToWideChar(CP_UTF8, 0, text, -1, wide, size);
    return wide;
}

static int find(void *library, const char *name, void *function) {
    FARPROC address = GetProcAddress(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

// What the library needs is looked for in its own folder first.
static void *open_library(const char *path, char **error) {
    void *library = LoadLibraryExW(widen(path), NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
    if (library == NULL) {
        *error = say("loading %s: error %lu of Windows", path, GetLastError());
    }
    return library;
}

static wchar_t *decode(const char *program) { return widen(program); }

static void coerce_locale(void) {}

#else

// ISO C has no cast from an object's address to a function's; POSIX promises that they have the same form.
static int find(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

// Global, because extension modules look for Python's functions in the process.
static void *open_library(const char *path, char **error) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL) {
        *error = say("loading libpython: %s", dlerror());
    }
    return library;
}

// The result is never freed: Python keeps the pointer.
static wchar_t *decode(const char *program) { return python.decode(program, NULL); }

// As `python` does in the C locale, and an embedded one does not (PEP 538), for libraries and processes that go by it.
static void coerce_locale(void) {
    const char *locale = setlocale(LC_CTYPE, ""), *all = getenv("LC_ALL");
    if ((all == NULL || *all == 0) && locale != NULL && (strcmp(locale, "C") == 0 || strcmp(locale, "POSIX") == 0)) {
        setenv("LC_CTYPE", "C.UTF-8", 1);
    }
}

#endif

static char *load(const char *path) {
    char *error = NULL;
    void *library = open_library(path, &error);
    if (library == NULL) {
        return error;
    }
    int found = find(library, "PyRun_SimpleStringFlags", &python.run);
    if (find(library, "PyInitConfig_Create", &python.config_new)) {
        found &= find(library, "PyInitConfig_Free", &python.config_free) &
                 find(library, "PyInitConfig_SetInt", &python.config_set_int) &
                 find(library, "PyInitConfig_SetStr", &python.config_set_str) &
                 find(library, "PyInitConfig_GetError", &python.config_error) &
                 find(library, "Py_InitializeFromInitConfig", &python.config_start);
    } else {
        found &= find(library, "Py_DecodeLocale", &python.decode) &
                 find(library, "Py_SetProgramName", &python.set_program) &
                 find(library, "Py_InitializeEx", &python.start) & find(library, "Py_UTF8Mode", &python.utf8_mode);
    }
    return found ? NULL : say("%s is no library of CPython 3.10 or newer", path);
}

// The new configuration begins isolated from the user's environment, the old one like `python`.
static char *initialize_with_config(const char *program, int utf8_mode) {
    const struct {
        const char *name;
        int value;
    } options[] = {
        {"isolated", 0},         {"use_environment", 1}, {"user_site_directory", 1},     {"safe_path", 0},
        {"configure_locale", 1}, {"parse_argv", 0},      {"install_signal_handlers", 0}, {"utf8_mode", utf8_mode},
    };
    init_config *config = python.config_new();
    if (config == NULL) {
        return say("starting Python: out of memory");
    }
    int status = python.config_set_str(config, "program_name", program);
    for (size_t i = 0; status == 0 && i < sizeof options / sizeof *options; i++) {
        status = python.config_set_int(config, options[i].name, options[i].value);
    }
    if (status == 0) {
        status = python.config_start(config);
    }
    char *error = NULL;
    if (status != 0) {
        const char *message = NULL;
        python.config_error(config, &message);
        error = say("starting Python: %s", message != NULL ? message : "it does not say why it failed");
    }
    python.config_free(config);
    return error;
}

static char *initialize(const char *program, int utf8_mode) {
    coerce_locale();
    if (python.config_new != NULL) {
        return initialize_with_config(program, utf8_mode);
    }
    *python.utf8_mode = utf8_mode;
    wchar_t *name = decode(program);
    if (name == NULL) {
        return say("starting Python: %s is no path in this locale", program);
    }
    python.set_program(name);
    python.start(0);
    return NULL;
}

static const char no_handlers[] = "import faulthandler\nfaulthandler.disable()\ndel faulthandler\n";

static void finish(struct job *job, char *error);

static void interpret(struct job *job) {
    char *source = job->source; // the job is its starter's, and gone once that is told
    char *error = initialize(job->program, job->utf8_mode);
    int started = error == NULL;
    if (started) {
        python.run(no_handlers, NULL);
    }
    finish(job, error);
    if (started) {
        python.run(source, NULL);
    }
    free(source);
}

#ifdef _WIN32

static void finish(struct job *job, char *error) {
    job->error = error;
    SetEvent(job->done);
}

static DWORD WINAPI run_thread(void *job) {
    interpret(job);
    return 0;
}

static char *start_thread(struct job *job) {
    job->done = CreateEventW(NULL, TRUE, FALSE, NULL);
    HANDLE thread = job->done == NULL ? NULL : CreateThread(NULL, 0, run_thread, job, 0, NULL);
    if (thread == NULL) {
        free(job->source);
        return say("making a thread for Python: error %lu of Windows", GetLastError());
    }
    CloseHandle(thread);
    WaitForSingleObject(job->done, INFINITE);
    CloseHandle(job->done);
    return job->error;
}

#else

static void finish(struct job *job, char *error) {
    pthread_mutex_lock(&job->lock);
    job->done = 1;
    job->error = error;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static void *run_thread(void *job) {
    interpret(job);
    return NULL;
}

static char *start_thread(struct job *job) {
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    signal(SIGPIPE, SIG_IGN); // as Python does; a mask would be inherited by all that an app starts
    pthread_t thread;
    int status = pthread_create(&thread, NULL, run_thread, job);
    if (status == 0) {
        pthread_detach(thread);
        pthread_mutex_lock(&job->lock);
        while (!job->done) {
            pthread_cond_wait(&job->changed, &job->lock);
        }
        pthread_mutex_unlock(&job->lock);
    } else {
        free(job->source);
        job->error = say("making a thread for Python: %s", strerror(status));
    }
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    return job->error;
}

#endif

#ifdef M_ARENA_MAX
// Every reload ends threads of Python and starts new ones, up to some dozens each time. glibc would give them memory from
// many arenas by turns, and what the old ones freed would be of no use to the new. This comes before main: Go's threads,
// which hardly use any of that memory, would have an arena each by the time that Python starts.
__attribute__((constructor)) static void limit_arenas(void) { mallopt(M_ARENA_MAX, 2); }
#endif

char *caddysnake_start(const char *library, const char *program, int utf8_mode, const char *source) {
    char *error = load(library);
    if (error != NULL) {
        return error;
    }
    struct job job = {.program = program, .utf8_mode = utf8_mode, .source = copy(source)};
    return start_thread(&job);
}
