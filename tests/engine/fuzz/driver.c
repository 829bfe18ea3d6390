/* Runs a fuzz target without libFuzzer: the files that it is given, or inputs of its own making for some seconds or a number
   of times. Inputs that reach new places in the engine are kept and changed further. An input that ends the process is
   left in the file "crash". */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_INPUT 1500u
#define MAX_CORPUS 4096u
#define PLACES (1u << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
void __sanitizer_cov_trace_pc(void);

const char *__asan_default_options(void) { return "abort_on_error=1:allocator_may_return_null=1"; }
const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

struct kept {
    uint8_t *bytes;
    size_t size;
};

static uint8_t input[MAX_INPUT];
static size_t input_size;
static struct kept corpus[MAX_CORPUS];
static uint32_t corpus_count;

/* ------------------------------------------------------------------ places that were reached */

static uint8_t reached[PLACES];
static uint32_t reached_count;
static uintptr_t last_place;

/* The compiler has each block of the engine call this. */
void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uint32_t edge = (uint32_t)((place ^ last_place << 5) * UINT64_C(0x9E3779B97F4A7C15) >> 48);
    last_place = place;
    if (reached[edge]) return;
    reached[edge] = 1;
    reached_count++;
}

/* ------------------------------------------------------------------ chance */

static uint64_t chance;

static uint32_t below(uint32_t count) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)(chance >> 16) % count;
}

static void change(void) {
    uint32_t at = below((uint32_t)input_size), size = 1u + below(32);
    if (size > input_size - at) size = (uint32_t)input_size - at;
    switch (below(5)) {
    case 0:
        input[at] = (uint8_t)below(256);
        break;
    case 1:
        input[at] = (uint8_t)(input[at] + below(9) - 4u);
        break;
    case 2:
        memmove(input + at, input + at + size, input_size - at - size);
        input_size -= size;
        break;
    case 3:
        if (input_size + size > MAX_INPUT) break;
        memmove(input + at + size, input + at, input_size - at);
        for (uint32_t i = 0; i < size; i++) input[at + i] = (uint8_t)below(256);
        input_size += size;
        break;
    default: {
        /* The rest of another one. */
        const struct kept *other = &corpus[below(corpus_count)];
        uint32_t from = below((uint32_t)other->size);
        size_t count = other->size - from;
        if (count > MAX_INPUT - at) count = MAX_INPUT - at;
        memcpy(input + at, other->bytes + from, count);
        input_size = at + count;
    }
    }
    if (!input_size) input[input_size++] = 0;
}

static void make_input(void) {
    if (corpus_count && below(8)) {
        const struct kept *from = &corpus[below(corpus_count)];
        memcpy(input, from->bytes, from->size);
        input_size = from->size;
        for (uint32_t times = 1u + below(6); times; times--) change();
        return;
    }
    input_size = 1u + below(MAX_INPUT);
    for (size_t i = 0; i < input_size; i++) input[i] = (uint8_t)below(256);
}

static void run_input(void) {
    uint32_t before = reached_count;
    last_place = 0;
    LLVMFuzzerTestOneInput(input, input_size);
    if (reached_count == before || corpus_count == MAX_CORPUS) return;
    struct kept *kept = &corpus[corpus_count++];
    *kept = (struct kept){.bytes = malloc(input_size), .size = input_size};
    if (!kept->bytes) abort();
    memcpy(kept->bytes, input, input_size);
}

/* ------------------------------------------------------------------ */

static void leave_input(int number) {
    int file = open("crash", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, input, input_size) < 0) _exit(3);
    close(file);
    signal(number, SIG_DFL);
    raise(number);
}

static int run_files(int count, char **names) {
    for (int i = 0; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        if (!file) {
            perror(names[i]);
            return 1;
        }
        input_size = fread(input, 1, sizeof input, file);
        fclose(file);
        LLVMFuzzerTestOneInput(input, input_size);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "-s") && strcmp(argv[1], "-n")) return run_files(argc - 1, argv + 1);
    if (argc < 4) {
        fprintf(stderr, "usage: %s FILE... | -s SECONDS SEED | -n INPUTS SEED\n", argv[0]);
        return 2;
    }
    long amount = atol(argv[2]), inputs = 0;
    chance = strtoull(argv[3], NULL, 10) * 2u + 1u;
    signal(SIGABRT, leave_input);
    signal(SIGSEGV, leave_input);
    for (time_t end = time(NULL) + amount; argv[1][1] == 's' ? time(NULL) < end : inputs < amount; inputs++) {
        make_input();
        run_input();
    }
    printf("%ld inputs, %u places reached, %u inputs kept\n", inputs, reached_count, corpus_count);
    for (uint32_t i = 0; i < corpus_count; i++) free(corpus[i].bytes);
    return 0;
}
