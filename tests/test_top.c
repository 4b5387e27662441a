/* SPDX-License-Identifier: MIT */
/* The forms in which statistics are read: Prometheus' text, judged by a strict parser; JSON, which must say what the
 * table says; and top, as text and on a terminal. With the real programs and a guest that does I/O. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/util.h"
#include "tests/harness.h"

#define MIB (1u << 20)

static struct world world;
static pid_t load; /* reads all the time */

/* Reads until it is killed. */
static int guest_read(const char *domain_dir, void *arg)
{
    static unsigned char buffer[16384];
    struct dz_domain *dom;
    struct dz_vbd *disk;
    (void)arg;
    if (dz_domain_open(domain_dir, &dom) || dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk))
        return 1;
    for (uint64_t at = 0; dz_vbd_read(disk, buffer, sizeof(buffer), at) == 0; at = (at + sizeof(buffer)) % (16 * MIB))
        ;
    return 1;
}

static bool load_has_read(void *ctx)
{
    char out[8192];
    (void)ctx;
    return world_domzero(&world, out, sizeof(out), "block-list busy") == 0 && strstr(out, " reads=");
}

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "a.img", 16 * MIB, 1);
    world_image(&world, "b.img", MIB, 1);
    unsigned domid = world_guest(&world, "busy", "a.img", NULL);
    world_guest(&world, "idle", "b.img", "dma=copy");
    load = world_spawn(&world, domid, guest_read, NULL);
    world_await(load_has_read, NULL, "the load reads");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kill(load, SIGKILL);
    assert_int_equal(world_wait(load), 128 + SIGKILL);
    world_stop(&world);
    return 0;
}

/* ---- Prometheus ---- */

#define SERIES_MAX 2000

struct exposition {
    char family[96], type[16]; /* of the last TYPE line */
    char families[64][96];     /* all that were */
    unsigned family_count, samples;
    char series[SERIES_MAX][160]; /* name and labels, each once */
    double value[SERIES_MAX];
    double bucket;       /* the last of a histogram's */
    char histogram[160]; /* its labels without le */
};

static bool name_char(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}

static const char *name_skip(const char *p)
{
    assert_true(name_char(*p, true));
    while (name_char(*p, false))
        p++;
    return p;
}

/* {a="b",c="d"}: its end. Copies all but le to `rest` and le's value to `le`. */
static const char *labels_skip(const char *p, char *rest, char *le)
{
    const char *start;
    rest[0] = le[0] = 0;
    if (*p != '{')
        return p;
    do {
        start = ++p;
        p = name_skip(p);
        assert_true(p[0] == '=' && p[1] == '"');
        bool is_le = p - start == 2 && !strncmp(start, "le", 2);
        for (p += 2; *p != '"'; p++) {
            assert_true(*p && *p != '\n');
            if (*p == '\\')
                assert_non_null(strchr("\\\"n", *++p));
            if (is_le)
                strncat(le, p, 1);
        }
        p++;
        if (!is_le)
            strncat(rest, start, (size_t)(p - start));
    } while (*p == ',');
    assert_int_equal(*p, '}');
    return p + 1;
}

/* HELP and TYPE come before the samples of a family, and a family comes once. */
static void comment_line(struct exposition *x, const char *line)
{
    char kind[8], name[96], rest[16];
    assert_int_equal(sscanf(line, "# %7s %95s %15[^\n]", kind, name, rest), 3);
    assert_int_equal(*name_skip(name), 0);
    assert_int_equal(strncmp(name, "domzero_block_", 14), 0);
    if (!strcmp(kind, "HELP")) {
        for (unsigned i = 0; i < x->family_count; i++)
            assert_string_not_equal(x->families[i], name);
        snprintf(x->families[x->family_count++], sizeof(x->families[0]), "%s", name);
        x->type[0] = 0;
        return;
    }
    assert_string_equal(kind, "TYPE");
    assert_string_equal(x->families[x->family_count - 1], name);
    assert_true(!strcmp(rest, "counter") || !strcmp(rest, "gauge") || !strcmp(rest, "histogram"));
    snprintf(x->family, sizeof(x->family), "%s", name);
    snprintf(x->type, sizeof(x->type), "%s", rest);
    if (!strcmp(rest, "counter"))
        assert_string_equal(name + strlen(name) - 6, "_total");
}

static void histogram_sample(struct exposition *x, const char *suffix, const char *rest, const char *le, double value)
{
    if (!strcmp(suffix, "_bucket")) {
        static double bound;
        double here = strtod(le, NULL); /* "+Inf" too */
        if (strcmp(x->histogram, rest))
            x->bucket = bound = 0;
        assert_true(here > bound && value >= x->bucket);
        bound = here;
        x->bucket = value;
        snprintf(x->histogram, sizeof(x->histogram), "%s", rest);
    } else if (!strcmp(suffix, "_count")) {
        assert_string_equal(x->histogram, rest);
        assert_true(value == x->bucket); /* what +Inf said */
    } else {
        assert_string_equal(suffix, "_sum");
    }
}

static void sample_line(struct exposition *x, const char *line)
{
    char rest[160], le[32], *end;
    const char *name_end = name_skip(line), *p = labels_skip(name_end, rest, le);
    size_t family = strlen(x->family);
    assert_true(x->type[0] && !strncmp(line, x->family, family) && *p == ' ');
    double value = strtod(p + 1, &end);
    assert_true(end > p + 1 && *end == 0 && value >= 0);
    char series[160], suffix[16];
    snprintf(series, sizeof(series), "%.*s", (int)(p - line), line);
    for (unsigned i = 0; i < x->samples; i++)
        assert_string_not_equal(x->series[i], series);
    assert_true(x->samples < SERIES_MAX);
    snprintf(x->series[x->samples], sizeof(x->series[0]), "%s", series);
    x->value[x->samples++] = value;
    snprintf(suffix, sizeof(suffix), "%.*s", (int)(name_end - line - (long)family), line + family);
    if (!strcmp(x->type, "histogram"))
        histogram_sample(x, suffix, rest, le, value);
    else
        assert_string_equal(suffix, "");
}

static double series_value(const struct exposition *x, const char *series)
{
    for (unsigned i = 0; i < x->samples; i++)
        if (!strcmp(x->series[i], series))
            return x->value[i];
    fail_msg("no series %s", series);
    return 0;
}

static void test_prometheus_text_is_well_formed_and_complete(void **state)
{
    static struct exposition x;
    static char text[1 << 18];
    (void)state;
    assert_int_equal(world_domzero(&world, text, sizeof(text), "block-stats --prometheus"), 0);
    size_t n = strlen(text);
    assert_true(n > 0 && n < sizeof(text) - 1 && text[n - 1] == '\n');
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && rest;)
        (line[0] == '#' ? comment_line : sample_line)(&x, line);
#define DISK "{domain=\"busy\",domid=\"1\",vdev=\"xvda\""
    double reads = series_value(&x, "domzero_block_reads_total" DISK "}");
    assert_true(reads > 0);
    assert_true(series_value(&x, "domzero_block_sectors_read_total" DISK "}") >= reads);
    assert_true(series_value(&x, "domzero_block_latency_seconds_count" DISK ",op=\"read\"}") > 0);
    assert_true(series_value(&x, "domzero_block_latency_seconds_sum" DISK ",op=\"read\"}") > 0);
    assert_true(series_value(&x, "domzero_block_request_errors_total" DISK ",kind=\"request_range\"}") == 0);
    assert_true(series_value(&x, "domzero_block_reads_total{domain=\"idle\",domid=\"2\",vdev=\"xvda\"}") == 0);
}

/* ---- JSON ---- */

static void test_json_is_json_and_names_every_number(void **state)
{
    char out[4096];
    (void)state;
    static const char check[] =
        "import json, sys; d = json.load(sys.stdin); s = d[0][\"stats\"];"
        "l = s[\"latency\"][\"read\"];"
        "assert [x[\"domain\"] for x in d] == [\"busy\", \"idle\"] and d[1][\"dma\"] == \"copy\";"
        "assert s[\"reads\"] > 0 and s[\"errors\"] == 0 and s[\"errors_by_kind\"][\"storage\"] == 0;"
        "assert sum(n for _, n in l[\"buckets\"]) == l[\"count\"] and l[\"p99_ns\"] >= l[\"p50_ns\"]";
    int status = world_shell(&world, out, sizeof(out), "%s block-stats --json | python3 -c '%s'",
                             world_program("domzero"), check);
    if (status)
        fail_msg("%s", out);
    status = world_shell(&world, out, sizeof(out),
                         "%s block-list busy --json | python3 -c 'import json, sys; "
                         "assert json.load(sys.stdin)[0][\"stats\"][\"reads\"] > 0'",
                         world_program("domzero"));
    if (status)
        fail_msg("%s", out);
    assert_int_equal(world_domzero(&world, out, sizeof(out), "block-list busy"), 0);
    assert_non_null(strstr(out, "stats: requests="));
}

/* ---- top ---- */

static void test_top_prints_the_rounds_that_it_was_asked_for(void **state)
{
    char out[4096];
    (void)state;
    unsigned heads = 0, rows = 0, busy = 0;
    assert_int_equal(world_domzero(&world, out, sizeof(out), "top --batch 3 --delay 0.3 --sort iops"), 0);
    for (char *rest = out, *line; (line = strsep(&rest, "\n"));) {
        char domain[16], vdev[8], dma[8];
        double v[9];
        assert_in_range(strlen(line), 0, 80);
        heads += !strncmp(line, "DOMAIN ", 7);
        int n = sscanf(line, "%15s %7s %lf %lf %lf %lf %lf %lf %lf %lf %7s %lf", domain, vdev, &v[0], &v[1], &v[2],
                       &v[3], &v[4], &v[5], &v[6], &v[7], dma, &v[8]);
        if (n != 12)
            continue;
        rows++;
        busy += !strcmp(domain, "busy") && v[0] > 0 && v[2] > 0 && v[4] > 0 && v[5] > 0 && !strcmp(dma, "pin");
        if (!strcmp(domain, "idle"))
            assert_true(v[0] == 0 && v[1] == 0 && !strcmp(dma, "copy"));
    }
    assert_int_equal(heads, 3);
    assert_int_equal(rows, 6);
    assert_true(busy > 0);
}

/* Reads the terminal until `words` came; everything that came is in out. */
static void screen_await(int fd, char *out, size_t size, const char *words)
{
    uint64_t end = clock_now_ns() + WORLD_PATIENCE_MS * CLOCK_NS_PER_MS;
    size_t n = 0;
    out[0] = 0;
    while (!strstr(out, words)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (clock_now_ns() > end)
            fail_msg("the screen does not show \"%s\", but: %s", words, out);
        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t got = read(fd, out + n, size - 1 - n);
        if (got <= 0)
            fail_msg("top ended: %s", out);
        n += (size_t)got;
        for (size_t i = 0; i < n; i++)
            out[i] = out[i] ? out[i] : ' ';
        out[n] = 0;
        if (n > size / 2) { /* keep the newest half */
            memmove(out, out + n / 2, n - n / 2 + 1);
            n -= n / 2;
        }
    }
}

static void test_top_draws_a_screen_and_obeys_its_keys(void **state)
{
    static char out[1 << 16];
    const struct winsize size = {.ws_row = 12, .ws_col = 80};
    int fd, status;
    (void)state;
    pid_t pid = forkpty(&fd, NULL, NULL, &size);
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        execl(world_program("domzero"), "domzero", "--run-dir", world.run, "top", "--delay", "0.2", (char *)NULL);
        _exit(127);
    }
    screen_await(fd, out, sizeof(out), "by domain");
    screen_await(fd, out, sizeof(out), "busy");
    assert_int_equal(write(fd, "s", 1), 1);
    screen_await(fd, out, sizeof(out), "iops");
    assert_int_equal(write(fd, "d", 1), 1);
    screen_await(fd, out, sizeof(out), "delay in seconds");
    assert_int_equal(write(fd, "7.5\n", 4), 4);
    screen_await(fd, out, sizeof(out), "7.5");
    assert_int_equal(write(fd, "q", 1), 1);
    char scrap[4096];
    while (read(fd, scrap, sizeof(scrap)) > 0)
        ;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prometheus_text_is_well_formed_and_complete),
        cmocka_unit_test(test_json_is_json_and_names_every_number),
        cmocka_unit_test(test_top_prints_the_rounds_that_it_was_asked_for),
        cmocka_unit_test(test_top_draws_a_screen_and_obeys_its_keys),
    };
    return cmocka_run_group_tests_name("top", tests, setup, teardown);
}
