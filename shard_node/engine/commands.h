/* The commands, as a table: names, traits, arguments, and what COMMAND DOCS says about them. */
#ifndef TALLYSTICK_COMMANDS_H
#define TALLYSTICK_COMMANDS_H

#include "call.h"

enum command_traits {
    COMMAND_WRITES = 1,  /* logged, and so confirmed by replicas (R8) */
    COMMAND_FENCED = 2,  /* its first argument is the fence */
    COMMAND_BEGINS = 4,  /* begins something new: refused while the ledger is full */
    COMMAND_LANDS = 8,   /* lets what is in flight land: never refused for memory by Redis */
    COMMAND_MAKES = 16,  /* makes the state where there is none */
    COMMAND_FAST = 32,   /* its work does not grow with anything */
    COMMAND_MARKS = 64,  /* logged, yet it changes nothing that anybody could read */
};

struct command {
    const char *name;
    enum call_result (*body)(struct call *call);
    int traits;
    int count;     /* arguments behind the fence that are always there */
    int optional;  /* how many more may follow */
    int group;     /* else groups of so many follow, one or more; 0 for none */
    const char *summary;
    const char *complexity;
    const struct redis_argument *arguments; /* with the fence */
};

extern const struct command commands[];
extern const int command_count;

/* NULL for none; names as they are logged, without case. */
const struct command *command_find(const char *name, size_t length);
/* Whether a command may have so many arguments behind its fence. */
bool command_takes(const struct command *command, int count);
/* With the command's name, as Redis counts: negative for at least so many. */
int command_arity(const struct command *command);
/* The flags that Redis gets. */
const char *command_flags(const struct command *command);

#endif
