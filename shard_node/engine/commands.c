/* See commands.h. */
#include "commands.h"

#include <string.h>
#include <strings.h>

#define TEXT(n, s) {.name = n, .type = REDIS_ARGUMENT_STRING, .key_spec_index = -1, .summary = s}
#define NUMBER(n, s) {.name = n, .type = REDIS_ARGUMENT_INTEGER, .key_spec_index = -1, .summary = s}
#define MAYBE(n, s) \
    {.name = n, .type = REDIS_ARGUMENT_INTEGER, .key_spec_index = -1, .summary = s, .flags = REDIS_ARGUMENT_OPTIONAL}
#define GROUPS(n, s, a)           \
    {.name = n,                   \
     .type = REDIS_ARGUMENT_BLOCK, \
     .key_spec_index = -1,        \
     .summary = s,                \
     .flags = REDIS_ARGUMENT_MULTIPLE, \
     .subarguments = a}
#define END {.name = NULL}
#define FENCE TEXT("fence", "cluster/shard/epoch, as the caller knows the topology")
#define WITH_BALANCES NUMBER("with-balances", "1 to answer the balances after, 0 for none")
#define ATTEMPT TEXT("attempt", "16 bytes: the attempt's id, which begins with its start in milliseconds")
#define BUNDLE TEXT("bundle", "a batch of transactions as columns, see shard_node/contract/layout.py")
#define SETTLED TEXT("settled", "17 bytes each: an attempt and the number of a participant that has finished it")
#define SLOT NUMBER("slot", "0 to 16383")

typedef const struct redis_argument arguments[];

static arguments bind_arguments = {
    TEXT("shard", "cluster/shard"), NUMBER("epoch", "of the topology; never falls"),
    NUMBER("window-ms", "how long a transaction id is remembered at least"),
    NUMBER("backlog-limit", "ledger entries that may wait to be archived before new transactions are refused"), END};

static arguments rename_arguments = {
    FENCE, TEXT("cluster", "the name of the cluster that the shard is of from now on"),
    NUMBER("epoch", "above the shard's"), END};

static arguments post_arguments = {FENCE, WITH_BALANCES, BUNDLE, END};

static arguments prepare_group = {
    ATTEMPT, TEXT("decider", "the deciding shard's id"), NUMBER("owner", "this shard's number in the attempt"), BUNDLE,
    END};
static arguments prepare_arguments = {FENCE, GROUPS("prepared", "attempts, each with its bundle", prepare_group), END};

static arguments decide_group = {
    ATTEMPT, TEXT("participants", "a byte and the shard's id, for the numbers 1, 2, ..."),
    TEXT("verdicts", "a byte a transaction: 0 to commit, SKIPPED, or a participant's refusal; empty to commit all"),
    TEXT("legs", "a byte a transaction: the leg that a refusal concerns; empty for none"), BUNDLE, END};
static arguments decide_arguments = {FENCE, WITH_BALANCES, SETTLED,
                                     GROUPS("decided", "attempts, each with its bundle", decide_group), END};

static arguments finish_group = {
    ATTEMPT, TEXT("codes", "what decide or abandon answered: a byte a transaction, or one for all"), END};
static arguments finish_arguments = {FENCE, WITH_BALANCES, GROUPS("finished", "attempts", finish_group), END};

static arguments settle_arguments = {FENCE, SETTLED, END};

static arguments abandon_group = {ATTEMPT, END};
static arguments abandon_arguments = {FENCE, GROUPS("abandoned", "attempts", abandon_group), END};

static arguments open_arguments = {
    FENCE, TEXT("accounts", "a list of names with limits, slots and currencies, see layout.py"), END};

static arguments set_state_arguments = {
    FENCE, NUMBER("dry", "1 to check only"), TEXT("changes", "a list of names, each with FREEZE, UNFREEZE or CLOSE"),
    END};

static arguments accounts_arguments = {FENCE, TEXT("names", "a list of names"), END};

static arguments check_arguments = {
    FENCE, NUMBER("owner", "whose legs are checked; 255 for all"), BUNDLE, END};

static arguments outcomes_arguments = {
    FENCE, TEXT("decisions", "18 bytes each: a transaction id and the slot that is its scope"), END};

static arguments names_arguments = {
    FENCE, TEXT("cursor", "what the call before answered; empty to begin"),
    TEXT("slots", "2 bytes each, little-endian"), END};

static arguments in_doubt_arguments = {
    FENCE, NUMBER("after", "the serial number of the last one read; 0 to begin"), NUMBER("count", "how many at most"),
    END};

static arguments mark_arguments = {FENCE, END};

static arguments rotate_arguments = {
    FENCE, NUMBER("min-age-ms", "how long ago the last rotation must be"),
    NUMBER("once-archived", "1 to wait until the archive has all that would be forgotten"),
    MAYBE("rotated-ms", "the last rotation that the caller knows of: after another one, nothing is done"), END};

static arguments expire_arguments = {FENCE, NUMBER("limit", "how many holds at most"), END};

static arguments archived_arguments = {
    FENCE, TEXT("stream-id", "of the last frame that is stored"), NUMBER("number", "of the batch"),
    TEXT("hash", "of the batch, by which the next one is chained"), NUMBER("entries", "ledger entries in the batch"),
    END};

static arguments slot_arguments = {FENCE, SLOT, END};

static arguments slot_export_arguments = {
    FENCE, SLOT, TEXT("cursor", "what the call before answered; empty to begin"),
    NUMBER("bytes", "about how large the chunk may be"), END};

static arguments slot_import_arguments = {FENCE, SLOT, TEXT("chunk", "what slot.export answered"), END};

static arguments slot_drop_arguments = {FENCE, SLOT, NUMBER("limit", "how many records at most"), END};

static arguments digest_arguments = {MAYBE("slot", "0 to 16383; none for all that the shard holds"), END};

static arguments account_arguments = {TEXT("account", "its id"), END};

static arguments no_arguments = {END};

#define BUNDLES "O(N) with N the legs of the bundles"

const struct command commands[] = {
    {"tallystick.post", body_post, COMMAND_FENCED | COMMAND_WRITES | COMMAND_BEGINS, 2, 0, 0,
     "Carries out transactions whose accounts are all on this shard.", BUNDLES, post_arguments},
    {"tallystick.prepare", body_prepare, COMMAND_FENCED | COMMAND_WRITES | COMMAND_BEGINS, 0, 0, 4,
     "Checks this participant's legs of attempts and keeps them.", BUNDLES, prepare_arguments},
    {"tallystick.decide", body_decide, COMMAND_FENCED | COMMAND_WRITES | COMMAND_BEGINS | COMMAND_LANDS, 2, 0, 5,
     "Commits or refuses attempts: the commit point of transactions across shards.", BUNDLES, decide_arguments},
    {"tallystick.finish", body_finish, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 1, 0, 2,
     "Applies what was committed of prepared attempts and drops the rest.", BUNDLES, finish_arguments},
    {"tallystick.settle", body_settle, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 1, 0, 0,
     "Notes which participants have finished; a commit that all have finished is dropped.",
     "O(N) with N the settlements", settle_arguments},
    {"tallystick.abandon", body_abandon, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 0, 0, 1,
     "Says what became of attempts; those that were not decided never will be.", "O(N) with N the attempts",
     abandon_arguments},
    {"tallystick.mark", body_mark,
     COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS | COMMAND_MARKS | COMMAND_FAST, 0, 0, 0,
     "Writes nothing but a mark: once replicas have it, they have all that came before.", "O(1)", mark_arguments},
    {"tallystick.open", body_open, COMMAND_FENCED | COMMAND_WRITES | COMMAND_BEGINS, 1, 0, 0, "Opens accounts.",
     "O(N) with N the accounts", open_arguments},
    {"tallystick.set_state", body_set_state, COMMAND_FENCED | COMMAND_WRITES | COMMAND_BEGINS, 2, 0, 0,
     "Freezes, unfreezes or closes accounts.", "O(N) with N the accounts", set_state_arguments},
    {"tallystick.accounts", body_accounts, COMMAND_FENCED, 1, 0, 0, "Reads accounts at one moment.",
     "O(N) with N the accounts, and the legs of prepared attempts where any holds something back",
     accounts_arguments},
    {"tallystick.check", body_check, COMMAND_FENCED, 2, 0, 0,
     "Says of each leg whether it could be carried out now; changes nothing.", BUNDLES, check_arguments},
    {"tallystick.outcomes", body_outcomes, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS | COMMAND_MARKS, 1, 0, 0,
     "Reads remembered outcomes, and marks the log, so that what was read can be confirmed.",
     "O(N) with N the decisions", outcomes_arguments},
    {"tallystick.names", body_names, COMMAND_FENCED, 2, 0, 0, "Lists the names of accounts by slot, a page a call.",
     "O(N) with N the names answered and the slots asked for", names_arguments},
    {"tallystick.in_doubt", body_in_doubt, COMMAND_FENCED, 2, 0, 0,
     "Lists attempts that are prepared here and commits that are not finished everywhere, oldest first.",
     "O(N) with N all of them", in_doubt_arguments},
    {"tallystick.rotate", body_rotate, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 2, 1, 0,
     "Forgets the older generation of outcomes; those of unsettled commits are carried over.",
     "O(N) with N what is forgotten and carried over", rotate_arguments},
    {"tallystick.expire", body_expire, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 1, 0, 0,
     "Ends holds whose time is over, longest overdue first.", "O(N log H) with N holds ended of H", expire_arguments},
    {"tallystick.archived", body_archived, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 4, 0, 0,
     "Trims the ledger up to what the archive has stored.", "O(N) with N the frames trimmed", archived_arguments},
    {"tallystick.bind", body_bind, COMMAND_WRITES | COMMAND_LANDS | COMMAND_MAKES | COMMAND_FAST, 4, 0, 0,
     "Binds this Redis to a shard, raises its epoch and sets its limits.", "O(1)", bind_arguments},
    {"tallystick.rename", body_rename, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS | COMMAND_FAST, 2, 0, 0,
     "Makes a copied shard one of another cluster, at a higher epoch.", "O(1)", rename_arguments},
    {"tallystick.slot.count", body_slot_count, COMMAND_FENCED, 1, 0, 0,
     "Counts and sums up what a slot holds.", "O(N) with N the slot's records", slot_arguments},
    {"tallystick.slot.export", body_slot_export, COMMAND_FENCED, 3, 0, 0,
     "Reads what a slot holds, a chunk a call.", "O(N) with N the records answered", slot_export_arguments},
    {"tallystick.slot.import", body_slot_import, COMMAND_FENCED | COMMAND_WRITES, 2, 0, 0,
     "Takes in a chunk of a slot; records that are there already are replaced.",
     "O(N) with N the chunk's records", slot_import_arguments},
    {"tallystick.slot.drop", body_slot_drop, COMMAND_FENCED | COMMAND_WRITES | COMMAND_LANDS, 2, 0, 0,
     "Removes what a slot holds, a part a call.", "O(N) with N the records removed", slot_drop_arguments},
    {"tallystick.digest", body_digest, 0, 0, 1, 0,
     "A number that is the same wherever the same is held: for a slot, or for the whole shard.",
     "O(N) with N the records of the slot, or of the shard", digest_arguments},
    {"tallystick.account", body_account, COMMAND_FAST, 1, 0, 0, "An account, for people.", "O(1)", account_arguments},
    {"tallystick.info", body_info, 0, 0, 0, 0,
     "How the shard is: what it holds, what is in doubt, what waits to be archived, its clock.",
     "O(N) with N what is in doubt",
     no_arguments},
};

const int command_count = sizeof commands / sizeof *commands;

const struct command *command_find(const char *name, size_t length) {
    for (int i = 0; i < command_count; i++)
        if (strlen(commands[i].name) == length && !strncasecmp(commands[i].name, name, length)) return &commands[i];
    return NULL;
}

bool command_takes(const struct command *command, int count) {
    int more = count - command->count;
    if (command->group) return more > 0 && more % command->group == 0;
    return more >= 0 && more <= command->optional;
}

int command_arity(const struct command *command) {
    int fixed = 1 + (command->traits & COMMAND_FENCED ? 1 : 0) + command->count;
    if (command->group) return -(fixed + command->group);
    return command->optional ? -fixed : fixed;
}

const char *command_flags(const struct command *command) {
    bool fast = command->traits & COMMAND_FAST;
    if (!(command->traits & COMMAND_WRITES)) return fast ? "readonly fast" : "readonly";
    if (!(command->traits & COMMAND_LANDS)) return fast ? "write deny-oom fast" : "write deny-oom";
    return fast ? "write fast" : "write";
}
