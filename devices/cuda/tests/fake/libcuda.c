/* A CUDA driver of host memory, for tests of ours without a device.
 *
 * Work is kept in its stream and done as late as CUDA allows: when something waits for it. So a slab that is written again
 * before it was read, or a queue that doesn't wait for the other one, shows in what comes back. Kernels are those that the
 * tests name: "twice" doubles the word at the block; "fault" fails as an illegal address does, for good.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };

typedef struct stream stream;

typedef struct event {
    stream *of;
    uint64_t position; /* of its record in its stream, from 1; 0: never recorded */
    int done;
    float time_ms;
} event;

typedef struct op {
    enum { COPY, SET32, PITCHED, RECORD, WAIT, TWICE, FAULT } kind;
    char *to;
    const char *from;
    size_t bytes, pitch;
    uint32_t value;
    event *event;
    struct op *next;
} op;

struct stream {
    op *first, **last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local void *current;
static int broken, contexts;
static float clock_ms = 1.0f;
static size_t allocated;

/* Does a stream's work, up to an event or all of it. */
static void work(stream *s, event *until) {
    while (s->first && !(until && until->done)) {
        op *o = s->first;
        if (!(s->first = o->next)) s->last = &s->first;
        if (!broken) switch (o->kind) {
            case COPY: memcpy(o->to, o->from, o->bytes); break;
            case SET32: for (size_t i = 0; i < o->bytes; i++) ((uint32_t *)o->to)[i] = o->value; break;
            case PITCHED: for (size_t i = 0; i < o->bytes; i++) *(uint32_t *)(o->to + i * o->pitch) = o->value; break;
            case RECORD: o->event->done = 1; o->event->time_ms = clock_ms += 0.25f; break;
            case WAIT: if (!o->event->done) work(o->event->of, o->event); break;
            case TWICE: *(uint64_t *)o->to *= 2; break;
            case FAULT: broken = ILLEGAL_ADDRESS; break;
        }
        free(o);
    }
}

static int put(void *s, op o) {
    op *mine = malloc(sizeof o);
    pthread_mutex_lock(&lock);
    int code = broken ? broken : current ? 0 : 201;
    if (!code) {
        *mine = o;
        mine->next = NULL;
        *((stream *)s)->last = mine;
        ((stream *)s)->last = &mine->next;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int n, int d) { snprintf(name, n, "Fake device"); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int what, int d) {
    switch (what) {
    case 8: *v = 49152; break;
    case 16: *v = 3; break;
    case 39: *v = 2048; break;
    case 75: *v = 9; break;
    default: *v = 0;
    }
    return 0;
}
int cuDeviceGetPCIBusId(char *name, int n, int d) { snprintf(name, n, "0000:01:00.0"); return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { contexts++; *c = &contexts; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { contexts--; return 0; }
int cuCtxSetCurrent(void *c) { current = c; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = (1 << 30) - allocated; *t = 1 << 30; return current ? 0 : 201; }
int cuMemAlloc_v2(uint64_t *p, size_t n) {
    if (n > (1 << 30) - allocated) return OUT_OF_MEMORY;
    allocated += n;
    /* What was never written is not zero. */
    char *m = malloc(n);
    memset(m, 0xA5, n);
    *p = (uint64_t)(uintptr_t)m;
    return 0;
}
int cuMemFree_v2(uint64_t p) { free((void *)(uintptr_t)p); return 0; }
int cuMemHostAlloc(void **p, size_t n, unsigned f) { *p = malloc(n); memset(*p, 0x5A, n); return 0; }
int cuMemFreeHost(void *p) { free(p); return 0; }
int cuStreamCreate(void **s, unsigned f) {
    stream *n = calloc(1, sizeof *n);
    n->last = &n->first;
    *s = n;
    return f == 1 ? 0 : 1;
}
int cuStreamDestroy_v2(void *s) { free(s); return 0; }
int cuStreamSynchronize(void *s) {
    pthread_mutex_lock(&lock);
    work(s, NULL);
    int code = broken;
    pthread_mutex_unlock(&lock);
    return code;
}
int cuStreamWaitEvent(void *s, void *e, unsigned f) { return put(s, (op){.kind = WAIT, .event = e}); }
int cuEventCreate(void **e, unsigned f) { *e = calloc(1, sizeof(event)); return 0; }
/* Kept: streams may still wait for it. */
int cuEventDestroy_v2(void *e) { return 0; }
int cuEventRecord(void *e, void *s) {
    ((event *)e)->of = s;
    return put(s, (op){.kind = RECORD, .event = e});
}
int cuEventQuery(void *e) {
    pthread_mutex_lock(&lock);
    int code = broken ? broken : ((event *)e)->done ? 0 : NOT_READY;
    pthread_mutex_unlock(&lock);
    return code;
}
int cuEventSynchronize(void *e) {
    pthread_mutex_lock(&lock);
    work(((event *)e)->of, e);
    int code = broken;
    pthread_mutex_unlock(&lock);
    return code;
}
int cuEventElapsedTime(float *ms, void *a, void *b) { *ms = ((event *)b)->time_ms - ((event *)a)->time_ms; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) {
    return put(s, (op){.kind = COPY, .to = (char *)(uintptr_t)to, .from = from, .bytes = n});
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
    return put(s, (op){.kind = COPY, .to = to, .from = (char *)(uintptr_t)from, .bytes = n});
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *s) {
    return put(s, (op){.kind = COPY, .to = (char *)(uintptr_t)to, .from = (char *)(uintptr_t)from, .bytes = n});
}
int cuMemsetD32Async(uint64_t to, unsigned v, size_t n, void *s) {
    return put(s, (op){.kind = SET32, .to = (char *)(uintptr_t)to, .value = v, .bytes = n});
}
int cuMemsetD2D32Async(uint64_t to, size_t pitch, unsigned v, size_t width, size_t height, void *s) {
    if (width != 1) return 1;
    return put(s, (op){.kind = PITCHED, .to = (char *)(uintptr_t)to, .value = v, .pitch = pitch, .bytes = height});
}
int cuModuleLoadData(void **m, const void *image) { *m = (void *)image; return memcmp(image, "\177ELF", 4) ? 200 : 0; }
int cuModuleUnload(void *m) { return 0; }
int cuModuleGetFunction(void **f, void *m, const char *name) {
    if (!strcmp(name, "twice")) *f = (void *)TWICE;
    else if (!strcmp(name, "fault")) *f = (void *)FAULT;
    else return NOT_FOUND;
    return 0;
}
int cuFuncGetAttribute(int *v, int what, void *f) { *v = what == 0 ? 512 : 0; return 0; }
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *s, void **arguments, void **extra) {
    if (gx < 1 || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || extra) return 1;
    uint64_t base = *(uint64_t *)arguments[0], block = *(uint64_t *)arguments[1];
    return put(s, (op){.kind = (int)(intptr_t)f, .to = (char *)(uintptr_t)(base + block)});
}
int cuGetErrorName(int code, const char **name) {
    *name = code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
    return *name ? 0 : 1;
}
int cuGetErrorString(int code, const char **text) {
    *text = "an illegal memory access was encountered";
    return 0;
}
