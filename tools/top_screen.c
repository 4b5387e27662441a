/* SPDX-License-Identifier: MIT */
/* tools/top_screen.c: top on a terminal, by ncurses. A role or a daemon that is away for a while is a sentence on the
 * screen and not the end of it. */
#include <curses.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tools/top.h"

struct screen {
    struct top *top;
    bool quit, measured; /* there is a whole interval to show */
    uint64_t next_ns;    /* when to look again */
    struct err err;      /* why the last look failed; "": it did not */
};

static void put_line(int y, int attributes, const char *text)
{
    if (y < 0 || y >= LINES)
        return;
    attron((attr_t)attributes);
    mvaddnstr(y, 0, text, COLS);
    attroff((attr_t)attributes);
}

static void draw(const struct screen *s)
{
    char line[TOP_LINE_BYTES];
    const struct top *t = s->top;
    erase();
    snprintf(line, sizeof(line), "domzero top - %.*s", TOP_LINE_BYTES - 20, t->tool->run_dir);
    put_line(0, A_BOLD, line);
    if (s->err.text[0]) {
        put_line(1, A_BOLD, s->err.text);
    } else if (s->measured) {
        top_format_sum(t, line);
        put_line(1, A_NORMAL, line);
    } else {
        put_line(1, A_NORMAL, "measuring ...");
    }
    top_format_head(line);
    for (int n = (int)strlen(line); n < COLS && n < TOP_LINE_BYTES - 1; n++)
        line[n] = ' ', line[n + 1] = 0;
    put_line(3, A_REVERSE, line);
    for (unsigned i = 0; s->measured && i < t->now.count && (int)i + 4 < LINES - 1; i++) {
        top_format_row(&t->rows[i], line);
        put_line((int)i + 4, t->rows[i].rate.problems ? A_BOLD : A_NORMAL, line);
    }
    snprintf(line, sizeof(line), "q quit   s sort (by %s)   d delay (%.1f s)", top_sort_name(t->sort), t->delay_s);
    put_line(LINES - 1, A_NORMAL, line);
    refresh();
}

static void look(struct screen *s)
{
    bool first = !s->top->rows;
    if (top_look(s->top, &s->err)) {
        tool_close(s->top->tool); /* the daemon may be another one next time */
    } else {
        s->err.text[0] = 0;
        s->measured = !first;
    }
    double wait_s = s->measured ? s->top->delay_s : MIN(s->top->delay_s, TOP_FIRST_DELAY_S);
    s->next_ns = clock_now_ns() + (uint64_t)(wait_s * (double)CLOCK_NS_PER_S);
}

static void ask_delay(struct screen *s)
{
    char text[16] = "";
    double delay_s;
    move(2, 0);
    clrtoeol();
    printw("delay in seconds: ");
    echo();
    timeout(-1);
    int rc = getnstr(text, (int)sizeof(text) - 1);
    noecho();
    if (rc == OK && top_delay_parse(text, &delay_s) == 0) {
        s->top->delay_s = delay_s;
        s->next_ns = clock_now_ns() + (uint64_t)(delay_s * (double)CLOCK_NS_PER_S);
    }
}

/* Until a key or the time of the next look. */
static void wait_key(struct screen *s)
{
    uint64_t now = clock_now_ns();
    timeout(s->next_ns > now ? (int)((s->next_ns - now + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS) : 0);
    switch (getch()) {
    case 'q':
    case 'Q': s->quit = true; break;
    case 's':
    case 'S':
        s->top->sort = (enum top_sort)((s->top->sort + 1) % TOP_SORTS);
        top_sort_rows(s->top);
        break;
    case 'd':
    case 'D': ask_delay(s); break;
    default: break; /* the time is over, or the window has another size */
    }
}

int top_screen_run(struct top *t, struct err *e)
{
    struct screen s = {.top = t};
    int rc = blkstat_read(t->tool, &(struct blkstat_filter){0}, &t->now, e);
    if (rc) /* a mistake in --run-dir is told at once */
        return rc;
    blkstat_free(&t->now);
    const char *terminal = getenv("TERM");
    SCREEN *terminal_screen = newterm(NULL, stdout, stdin);
    if (!terminal_screen)
        return err_set(e, -ENOTTY, "the terminal \"%.40s\" is not known: set TERM, or use --batch N",
                       terminal ? terminal : "");
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    while (!s.quit) {
        if (clock_now_ns() >= s.next_ns)
            look(&s);
        draw(&s);
        wait_key(&s);
    }
    endwin();
    delscreen(terminal_screen);
    return 0;
}
