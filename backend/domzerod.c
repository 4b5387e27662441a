/* SPDX-License-Identifier: MIT */
/* domzerod: the dom0 daemon. Options here, the work in supervisor.c and in the roles. */
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "backend/blk/engine.h"
#include "backend/role.h"
#include "backend/supervisor.h"
#include "base/fdlimit.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/rundir.h"

#define EXIT_USAGE 2

static const char usage_text[] =
    "usage: domzerod [--run-dir DIR] [--role ROLE[,ROLE]] [--domain-dir DIR] [--platform user] [--foreground]\n"
    "                [--poll interrupt|adaptive|poll] [--spin-us N] [--reactors N]\n"
    "                [--store-answers c|ocaml] [--store-quota NAME=N[,NAME=N]]\n"
    "                [--log-level error|warning|info|debug]\n"
    "\n"
    "Serves virtual disks to guests. Returns once all roles serve: hypervisor, store, blk. See domzerod(8).\n"
    "  --run-dir DIR      sockets, pid files and log; default $DOMZERO_RUN_DIR, else /run/domzero for root and\n"
    "                     $XDG_RUNTIME_DIR/domzero for others\n"
    "  --role ROLES       only these\n"
    "  --domain-dir DIR   a driver domain: role blk as the domain whose directory this is, instead of domain 0\n"
    "  --platform NAME    the world to run in: user\n"
    "  --foreground       stay attached to the terminal, and log to it\n"
    "  --poll MODE        how queues wait: sleep at once, poll for a short window first (adaptive, the default), or\n"
    "                     poll all the time\n"
    "  --spin-us N        that window in microseconds; 50 by default\n"
    "  --reactors N       threads that serve queues, 1 to 16; 0, the default: half of the processors, 1 to 6\n"
    "  --store-answers S  whose answers the store gives where Xen's two servers differ: c (the default) or ocaml\n"
    "  --store-quota LIST what a domain may make the store hold, NAME=NUMBER, by xenstored's names\n"
    "  --log-level LEVEL  what is logged; info by default\n";

enum {
    OPT_AS_ROLE = 256,
    OPT_READY_FD,
    OPT_STOP_FD,
    OPT_LOG_FD,
    OPT_JOURNAL_FD,
    OPT_CLAIM_FD,
    OPT_STANDBY,
    OPT_STATE_FD,
    OPT_STATE_CHECK,
    OPT_DOMAIN_DIR,
    OPT_POLL,
    OPT_SPIN,
    OPT_REACTORS,
    OPT_STORE_ANSWERS,
    OPT_STORE_QUOTA,
    OPT_LOG
};

static const struct option long_options[] = {
    {"run-dir", required_argument, NULL, 'r'},
    {"role", required_argument, NULL, 'R'},
    {"platform", required_argument, NULL, 'p'},
    {"foreground", no_argument, NULL, 'f'},
    {"help", no_argument, NULL, 'h'},
    {"as-role", required_argument, NULL, OPT_AS_ROLE},
    {"ready-fd", required_argument, NULL, OPT_READY_FD},
    {"stop-fd", required_argument, NULL, OPT_STOP_FD},
    {"log-fd", required_argument, NULL, OPT_LOG_FD},
    {"journal-fd", required_argument, NULL, OPT_JOURNAL_FD},
    {"claim-fd", required_argument, NULL, OPT_CLAIM_FD},
    {"standby", no_argument, NULL, OPT_STANDBY},
    {"state-fd", required_argument, NULL, OPT_STATE_FD},
    {"state-check", no_argument, NULL, OPT_STATE_CHECK},
    {"domain-dir", required_argument, NULL, OPT_DOMAIN_DIR},
    {"poll", required_argument, NULL, OPT_POLL},
    {"spin-us", required_argument, NULL, OPT_SPIN},
    {"reactors", required_argument, NULL, OPT_REACTORS},
    {"store-answers", required_argument, NULL, OPT_STORE_ANSWERS},
    {"store-quota", required_argument, NULL, OPT_STORE_QUOTA},
    {"log-level", required_argument, NULL, OPT_LOG},
    {NULL, 0, NULL, 0},
};

static int usage_error(const char *fmt, const char *what)
{
    fprintf(stderr, "domzerod: ");
    fprintf(stderr, fmt, what);
    fprintf(stderr, "; `domzerod --help` shows what there is\n");
    return EXIT_USAGE;
}

static int parse_int(const char *text, unsigned max)
{
    uint64_t v;
    return parse_u64(text, 0, max, &v) < 0 ? -1 : (int)v;
}

static int parse_log_level(const char *text)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(text, names[i]) == 0)
            return (int)i;
    return -1;
}

static bool poll_mode_known(const char *text)
{
    return !strcmp(text, "interrupt") || !strcmp(text, "adaptive") || !strcmp(text, "poll");
}

/* Comma-separated role names into o->run, in the table's order. NULL: all. The first unknown name, or NULL. */
static const char *roles_select(struct supervisor_options *o, const char *list)
{
    static char copy[128];
    bool wanted[SUPERVISOR_ROLES_MAX] = {false};
    snprintf(copy, sizeof(copy), "%s", list ? list : "");
    for (char *save, *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        const struct role *role = role_find(name);
        if (!role)
            return name;
        wanted[role - roles] = true;
    }
    for (unsigned i = 0; i < role_count; i++)
        if (!list || wanted[i])
            o->run[o->run_count++] = &roles[i];
    return o->run_count ? NULL : "";
}

struct options {
    struct supervisor_options sup;
    const char *role_list;
    const struct role *as_role;
    int log_level;
};

/* 0, or an exit status plus 1. */
static int options_parse(int argc, char **argv, struct options *o)
{
    struct err e = {0};
    opterr = 0;
    for (;;) {
        struct role_options *role = &o->sup.role;
        int number = 0, at = optind, c = getopt_long(argc, argv, "+:h", long_options, NULL);
        if (c == -1)
            break;
        switch (c) {
        case 'r': role->run_dir = optarg; break;
        case 'R': o->role_list = optarg; break;
        case 'p': role->platform_row = optarg; break;
        case 'f': o->sup.background = false; break;
        case 'h': fputs(usage_text, stdout); return 1;
        case OPT_AS_ROLE: o->as_role = role_find(optarg); break;
        case OPT_READY_FD: number = role->ready_fd = parse_int(optarg, INT_MAX); break;
        case OPT_STOP_FD: number = role->stop_fd = parse_int(optarg, INT_MAX); break;
        case OPT_LOG_FD: number = role->log_fd = parse_int(optarg, INT_MAX); break;
        case OPT_JOURNAL_FD: number = role->journal_fd = parse_int(optarg, INT_MAX); break;
        case OPT_CLAIM_FD: number = role->claim_fd = parse_int(optarg, INT_MAX); break;
        case OPT_STANDBY: role->standby = true; break;
        case OPT_STATE_FD: number = role->state_fd = parse_int(optarg, INT_MAX); break;
        case OPT_STATE_CHECK: role->state_check = true; break;
        case OPT_DOMAIN_DIR: role->domain_dir = optarg; break;
        case OPT_POLL: role->poll = optarg; break;
        case OPT_SPIN: number = parse_int(optarg, 1000000), role->spin_us = (unsigned)number; break;
        case OPT_REACTORS: number = parse_int(optarg, ROLE_REACTORS_MAX), role->reactors = (unsigned)number; break;
        case OPT_STORE_ANSWERS:
            role->store_answers = optarg;
            number = store_answers_parse(optarg, &role->store.answers);
            break;
        case OPT_STORE_QUOTA:
            role->store_quota = optarg;
            number = store_quota_parse(optarg, &role->store.quota, &e);
            break;
        case OPT_LOG:
            o->sup.log_level = optarg;
            number = o->log_level = parse_log_level(optarg);
            break;
        case ':': return usage_error("option '%s' lacks its value", argv[at]) + 1;
        default: return usage_error("there is no option '%s'", argv[at]) + 1;
        }
        if (number < 0)
            return usage_error(e.text[0] ? "%s" : "'%s' is no value for this option", e.text[0] ? e.text : optarg) + 1;
    }
    if (optind < argc)
        return usage_error("unexpected argument '%s'", argv[optind]) + 1;
    return poll_mode_known(o->sup.role.poll) ? 0 : usage_error("unknown poll mode '%s'", o->sup.role.poll) + 1;
}

static int run_as_role(const struct role *role, const struct options *o)
{
    static char name[32];
    snprintf(name, sizeof(name), "domzerod[%s]", role->name);
    log_setup(name, (enum log_level)o->log_level);
    signal(SIGINT, SIG_IGN); /* the terminal's: the supervisor stops us */
    fdlimit_raise(NULL);     /* hundreds of guests: some descriptors for each in every role */
    return role->run(&o->sup.role) != 0;
}

/* Whose daemon it is and which roles it runs: 0, or an exit status. */
static int place(struct options *o, char run_dir[RUNDIR_BYTES_MAX + 1])
{
    struct role_options *role = &o->sup.role;
    struct err e;
    if (role->domain_dir && role->run_dir)
        return usage_error("%s and --run-dir exclude each other", "--domain-dir");
    const char *unknown = roles_select(&o->sup, !o->role_list && role->domain_dir ? "blk" : o->role_list);
    if (unknown)
        return usage_error("no role '%s': there are hypervisor, store, blk", unknown);
    if (role->domain_dir && (o->sup.run_count != 1 || o->sup.run[0] != role_find("blk")))
        return usage_error("a driver domain (%s) has role blk and no other", "--domain-dir");
    if (role->domain_dir)
        return 0;
    if (rundir_find(role->run_dir, run_dir, &e) < 0) {
        log_error("%s", e.text);
        return 1;
    }
    role->run_dir = run_dir;
    return 0;
}

int main(int argc, char **argv)
{
    struct options o = {
        .sup = {.role = {.platform_row = "user",
                         .poll = "adaptive",
                         .spin_us = ENGINE_SPIN_US_DEFAULT,
                         .ready_fd = -1,
                         .stop_fd = -1,
                         .state_fd = -1,
                         .argv = argv,
                         .log_fd = -1},
                .log_level = "info",
                .background = true},
        .log_level = LOG_INFO,
    };
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of that write */
    int status = options_parse(argc, argv, &o);
    if (status)
        return status - 1;
    if (o.as_role)
        return run_as_role(o.as_role, &o);
    log_setup("domzerod", (enum log_level)o.log_level);
    char run_dir[RUNDIR_BYTES_MAX + 1], program[PATH_MAX] = "";
    status = place(&o, run_dir);
    if (status)
        return status;
    if (readlink("/proc/self/exe", program, sizeof(program) - 1) < 0) {
        log_error("cannot find its own program: %s", strerror(errno));
        return 1;
    }
    o.sup.program = program;
    return supervisor_run(&o.sup);
}
