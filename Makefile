# SPDX-License-Identifier: MIT
# domzero: `make help` lists what there is to make.
#
# A room is a folder; all its .c files go into build/lib<room>.a. A new file needs no edit here, nor does a new test,
# example or bench program: each .c in tests/ named test_*.c, in examples/ or in bench/ is a program of its own.

BUILD   ?= build
PREFIX  ?= /usr/local
NBDKIT_PLUGINS ?= $(PREFIX)/lib/nbdkit/plugins
CC      ?= gcc
AR      ?= ar
OPT     ?= -O2 -g
SANFLAGS ?=

ROOMS   := base ring grant store xenbus hypervisor platform frontend backend tools
CPPFLAGS += -I. -Iinclude -D_GNU_SOURCE -D__XEN_TOOLS__
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wno-format-nonliteral -Wundef
CFLAGS  += -std=gnu11 $(OPT) $(WARN) -fPIC -fvisibility=hidden -pthread -fno-strict-aliasing $(SANFLAGS)
LDFLAGS += -pthread $(SANFLAGS)
LDLIBS  := -luring -lz

src      = $(sort $(wildcard $(1)/*.c $(1)/*/*.c))
obj      = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIBS    := $(foreach r,$(ROOMS),$(if $(call src,$(r)),$(BUILD)/lib$(r).a))
MAINS   := backend/domzerod.c tools/domzero.c
GROUP    = -Wl,--start-group $(LIBS) -Wl,--end-group

PROGRAMS := $(if $(wildcard backend/domzerod.c),$(BUILD)/domzerod) $(if $(wildcard tools/domzero.c),$(BUILD)/domzero)
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/test_*.c)))
HARNESS  := $(filter-out tests/test_%.c tests/peer_%.c,$(wildcard tests/*.c))
PEER_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/peer_*.c)))
EXAMPLES := $(patsubst examples/%.c,$(BUILD)/examples/%,$(sort $(wildcard examples/*.c)))
BENCHES  := $(patsubst bench/%.c,$(BUILD)/bench/%,$(sort $(wildcard bench/*.c)))
ATTACK_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard bench/attack/*.c)))
MUTANT_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/mutants/*.c)))
# What is built for other programs needs their headers: built where those are, and never with sanitizers, as the
# programs that load them have none.
FIO_SOURCE := $(BUILD)/fio-src/tree
PLUGINS  := $(if $(SANFLAGS),,$(if $(wildcard /usr/include/nbdkit-plugin.h),$(BUILD)/nbdkit-domzero-plugin.so) \
    $(if $(wildcard $(FIO_SOURCE)/config-host.h),$(BUILD)/fio-domzero.so))
PEER_TESTS := nbdkit fio torture store_peers store_diff
LIBDZ    := $(if $(wildcard frontend/*.c),$(BUILD)/libdomzero.a $(BUILD)/libdomzero.so)

.PHONY: all deps demo plugins check check-peers check-torture check-asan check-tsan check-valgrind fuzz bench bench-block bench-dma bench-rows bench-many bench-poll bench-store attack-dma report tidy format help install clean programs tests plugin-files
.DELETE_ON_ERROR:
.SECONDARY:
all: deps
	@$(MAKE) --no-print-directory programs
programs: $(PROGRAMS) $(LIBDZ) $(EXAMPLES)
tests: programs $(TESTS) $(PEER_PROGRAMS) $(PLUGINS) $(BENCHES)
plugin-files: programs $(PLUGINS)
	@echo 'plugins: $(or $(strip $(PLUGINS)),none, as nbdkit-plugin.h and the source of fio are not here)'

deps:
	@scripts/deps.sh build

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

define room_rule
$(BUILD)/lib$(1).a: $(call obj,$(filter-out $(MAINS),$(call src,$(1))))
	@rm -f $$@
	$(AR) rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

# The daemon's data path crosses rooms in calls of a few instructions: what it is made of is compiled once more, to be
# optimised as one when it is linked. 3 to 4 % of a 4 KiB read.
LTO      ?= $(if $(SANFLAGS)$(findstring clang,$(CC)),,-flto=auto)
LTO_ROOMS := base ring grant platform backend
LTO_OBJS := $(foreach r,$(LTO_ROOMS),$(patsubst %.c,$(BUILD)/lto/%.o,$(call src,$(r))))
$(BUILD)/lto/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LTO) -MMD -MP -c -o $@ $<
ifeq ($(LTO),)
$(BUILD)/domzerod: $(BUILD)/backend/domzerod.o $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $< $(GROUP) $(LDLIBS)
else
$(BUILD)/domzerod: $(LTO_OBJS) $(LIBS)
	$(CC) $(CFLAGS) $(LTO) $(LDFLAGS) -o $@ $(LTO_OBJS) $(GROUP) $(LDLIBS)
endif

$(BUILD)/domzero: $(BUILD)/tools/domzero.o $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $< $(GROUP) $(LDLIBS) -lxlutil -lxenlight -lncurses -ltinfo

# The guest library. One relocatable object whose hidden names are made local, so that neither the static nor the
# shared library shows a program anything but dz_*.
DZ_ROOMS := base ring grant store xenbus hypervisor platform frontend
DZ_OBJS   = $(foreach r,$(DZ_ROOMS),$(call obj,$(call src,$(r))))
$(BUILD)/libdomzero.a: $(DZ_OBJS)
	ld -r -o $(BUILD)/domzero-all.o $^
	objcopy --localize-hidden $(BUILD)/domzero-all.o
	@rm -f $@
	$(AR) rcs $@ $(BUILD)/domzero-all.o
$(BUILD)/libdomzero.so: $(DZ_OBJS) frontend/libdomzero.map
	$(CC) $(LDFLAGS) -shared -Wl,-soname,libdomzero.so.0 -Wl,--version-script=frontend/libdomzero.map -o $@ $(DZ_OBJS) -lz
	@ln -sf libdomzero.so $(BUILD)/libdomzero.so.0

$(BUILD)/examples/%: $(BUILD)/examples/%.o $(BUILD)/libdomzero.a $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(BUILD)/libdomzero.a $(GROUP) $(LDLIBS) -lxenstore

# Plugins see the installed headers and their own only (layers.txt), and carry the library in them.
PLUGIN_LINK = $(CC) -I. -Iinclude -D_GNU_SOURCE $(CFLAGS) -MMD -MP $(LDFLAGS) -shared -Wl,--exclude-libs,ALL
$(BUILD)/nbdkit-domzero-plugin.so: plugins/nbdkit-domzero.c plugins/diskshare.c $(BUILD)/libdomzero.a
	$(PLUGIN_LINK) -o $@ $(filter %.c,$^) $(BUILD)/libdomzero.a -lz
# fio's headers are not as strict as we are with ourselves; config-host.h belongs before everything.
$(BUILD)/fio-domzero.so: plugins/fio-domzero.c plugins/diskshare.c $(BUILD)/libdomzero.a $(FIO_SOURCE)/config-host.h
	$(PLUGIN_LINK) -isystem $(FIO_SOURCE) -include $(FIO_SOURCE)/config-host.h -o $@ $(filter %.c,$^) $(BUILD)/libdomzero.a -lz

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(GROUP) $(LDLIBS) -lm

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(call obj,$(HARNESS)) $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(call obj,$(HARNESS)) $(GROUP) $(LDLIBS) -lxenstore -lcmocka

# The attack bench is a program of several files; its test adds code that is wrong on purpose.
$(BUILD)/bench/attack_dma: $(ATTACK_OBJS)
$(BUILD)/bench/attack_dma: GROUP := $(ATTACK_OBJS) $(GROUP)
$(BUILD)/tests/test_attack: $(ATTACK_OBJS) $(MUTANT_OBJS)
$(BUILD)/tests/test_attack: GROUP := $(MUTANT_OBJS) $(ATTACK_OBJS) $(GROUP)
$(BUILD)/tests/test_diskshare: $(BUILD)/plugins/diskshare.o
$(BUILD)/tests/test_diskshare: LDLIBS += $(BUILD)/plugins/diskshare.o $(GROUP)
# The fuzzer brings a main() of its own.
$(BUILD)/fuzz-store: tests/peer_fuzz.c $(call obj,tests/fuzz_store.c tests/fuzz_store_wire.c) $(BUILD)/libstore.a $(BUILD)/libbase.a
	$(CC) $(CPPFLAGS) $(CFLAGS) -DFUZZ_LIBFUZZER -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(BUILD)/tests/test_blkfront_fallback: | $(addprefix $(BUILD)/tests/test_blkfront_,queues reconnect unusual late)
$(BUILD)/tests/test_cfg: LDLIBS += -lxlutil -lxenlight

plugins:
	@scripts/deps.sh build plugins
	@scripts/fio-source.sh $(BUILD)/fio-src || true
	@$(MAKE) --no-print-directory plugin-files

demo: deps
	@$(MAKE) --no-print-directory programs
	@BUILD=$(BUILD) scripts/demo.sh

check:
	@scripts/deps.sh check
	@$(MAKE) --no-print-directory tests
	@BUILD=$(BUILD) scripts/run-tests.sh
check-peers:
	@$(MAKE) --no-print-directory plugins
	@scripts/deps.sh check plugins peers
	@$(MAKE) --no-print-directory tests
	@BUILD=$(BUILD) STORE_RANDOM_S=30 STORE_DIFF_STEPS=6000 TEST='@($(subst $() ,|,$(strip $(PEER_TESTS))))' scripts/run-tests.sh
check-torture:
	@$(MAKE) --no-print-directory plugins
	@scripts/deps.sh check plugins
	@$(MAKE) --no-print-directory tests
	@BUILD=$(BUILD) scripts/torture.sh fio
	@BUILD=$(BUILD) scripts/torture.sh ext4
	@BUILD=$(BUILD) scripts/torture.sh cuts
check-asan:
	@scripts/deps.sh check
	@$(MAKE) --no-print-directory BUILD=build/asan OPT="-O1 -g -fno-omit-frame-pointer" SANFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined" tests
	@BUILD=build/asan MODE=asan scripts/run-tests.sh
check-tsan:
	@scripts/deps.sh check
	@$(MAKE) --no-print-directory BUILD=build/tsan OPT="-O1 -g -fno-omit-frame-pointer" SANFLAGS="-fsanitize=thread" tests
	@BUILD=build/tsan MODE=tsan scripts/run-tests.sh
check-valgrind:
	@scripts/deps.sh check valgrind
	@$(MAKE) --no-print-directory tests
	@BUILD=$(BUILD) MODE=valgrind scripts/run-tests.sh
fuzz:
	@scripts/deps.sh check fuzz
	@$(MAKE) --no-print-directory BUILD=build/fuzz CC=clang-14 OPT="-O1 -g -fno-omit-frame-pointer" SANFLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" build/fuzz/fuzz-store
	@scripts/fuzz.sh build/fuzz/fuzz-store

# A look at the most important cases in a minute, and the whole table with all peers.
BENCH_CASES := hot-read-qd1,hot-read-qd32,hot-write-qd1,hot-write-qd32
BENCH_PEERS := floor,domzero,qsd
bench:
	@$(MAKE) --no-print-directory bench-block CASES="$(or $(CASES),$(BENCH_CASES))" PEERS="$(or $(PEERS),$(BENCH_PEERS))"
bench-block:
	@scripts/deps.sh build bench || echo 'bench-block: what is missing is left out'
	@$(MAKE) --no-print-directory programs $(BENCHES)
	@BUILD=$(BUILD) CASES="$(CASES)" PEERS="$(PEERS)" python3 bench/block.py

bench-poll:
	@scripts/deps.sh build drivers
	@$(MAKE) --no-print-directory programs $(BUILD)/bench/guest_poll
	@BUILD=$(BUILD) python3 bench/poll.py

# Xen's own two stores take part where Debian's package of them can be had.
bench-store:
	@scripts/deps.sh build drivers
	@$(MAKE) --no-print-directory programs $(BUILD)/bench/store_load
	@BUILD=$(BUILD) CASES="$(CASES)" PEERS="$(PEERS)" python3 bench/store.py

# What is measured beside the strategies of grant/dma_list.h, in no other build.
bench-rows:
	@$(MAKE) --no-print-directory BUILD=build/rows OPT="$(OPT) -DDMA_BENCH_ROWS" programs $(BENCHES:$(BUILD)/%=build/rows/%)

# What the DMA strategies cost, all rows of one build.
bench-dma:
	@scripts/deps.sh build drivers
	@$(MAKE) --no-print-directory bench-rows
	@BUILD=build/rows python3 bench/dma.py

bench-many:
	@scripts/deps.sh build
	@$(MAKE) --no-print-directory programs $(BUILD)/bench/many_disks
	@BUILD=$(BUILD) bench/many.sh

attack-dma:
	@scripts/deps.sh build drivers
	@$(MAKE) --no-print-directory $(BUILD)/bench/attack_dma
	@BUILD=$(BUILD) python3 bench/attack.py

tidy:
	@scripts/deps.sh check tidy
	@scripts/tidy.sh
format:
	clang-format -i $$(git ls-files -co --exclude-standard '*.c' '*.h')

# One page of what the four DMA strategies cost and what they stop: the instruments one after the other, and then the page.
# ONLY=render makes the page anew of what is in RESULTS.
report:
	@scripts/deps.sh report || echo 'report: without gnuplot the page has tables and no pictures'
	@[ "$(ONLY)" = render ] || $(MAKE) --no-print-directory programs $(BENCHES) bench-rows
	@BUILD=$(BUILD) RESULTS="$(RESULTS)" ONLY="$(ONLY)" QUICK="$(QUICK)" python3 bench/report.py

install: deps
	@$(MAKE) --no-print-directory programs $(wildcard $(BUILD)/nbdkit-domzero-plugin.so)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include/domzero $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8
	install $(BUILD)/domzerod $(DESTDIR)$(PREFIX)/sbin/
	install $(BUILD)/domzero $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/libdomzero.a $(DESTDIR)$(PREFIX)/lib/
	install $(BUILD)/libdomzero.so $(DESTDIR)$(PREFIX)/lib/libdomzero.so.0
	ln -sf libdomzero.so.0 $(DESTDIR)$(PREFIX)/lib/libdomzero.so
	install -m 644 include/domzero/*.h $(DESTDIR)$(PREFIX)/include/domzero/
	install -m 644 docs/domzero.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 docs/domzerod.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	$(if $(wildcard $(BUILD)/nbdkit-domzero-plugin.so),install -D -m 644 $(BUILD)/nbdkit-domzero-plugin.so $(DESTDIR)$(NBDKIT_PLUGINS)/nbdkit-domzero-plugin.so)
	sed 's|@PREFIX@|$(PREFIX)|' frontend/domzero.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/domzero.pc

clean:
	rm -rf build

help:
	@echo 'make                 build the daemon, the command line, the guest library and the examples'
	@echo 'make demo            a guest process does verified I/O on real images through the dom0 daemon'
	@echo 'make check           the tests'
	@echo 'make plugins         the nbdkit plugin and the fio engine; installs the packages that they need'
	@echo 'make check-peers     the tests with nbdkit, qemu and fio, for which it builds the plugins, and with Xen'"'"'s xenstore programs'
	@echo 'make check-torture   10 GiB of fio, and ext4, on a disk whose backend is killed every two seconds; five minutes'
	@echo 'make check-asan      the tests under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make check-tsan      the tests under ThreadSanitizer'
	@echo 'make check-valgrind  the tests under valgrind'
	@echo 'make fuzz            libFuzzer looks for what breaks the store, a minute for each target; SECONDS_EACH=60 TARGETS="wire record state"'
	@echo 'make tidy            format, clang-tidy, layer table, sizes of functions and files'
	@echo 'make bench           IOPS and latency next to plain io_uring on the same file, in a minute; SECONDS_EACH=2 ROUNDS=5'
	@echo 'make bench-block     all cases beside io_uring, qemu and NBD servers, and the goals, in a quarter of an hour; CASES=hot-read-qd32 PEERS=…'
	@echo 'make report          what the DMA strategies cost and what they stop, as one HTML page, in under 15 minutes; QUICK=1: in under 2'
	@echo 'make bench-dma       what copy, validate, pin and iommu cost beside a row that checks nothing, in eight minutes; QUICK=1 in half of one; CASES=hot-read-4k-qd32'
	@echo 'make bench-poll      interrupts and polling by arrivals of many kinds, in four minutes; QUICK=1 LOADS=pattern MODES=adaptive,poll'
	@echo 'make bench-store     the store beside xenstored and oxenstored: rates, latency, processor time, growth, in ten minutes; QUICK=1 CASES=read-* PEERS=ours,c'
	@echo 'make bench-many      256 guests on one backend: time to connect, memory a disk, fairness; GUESTS=256 SECONDS_EACH=10'
	@echo 'make bench-rows      builds build/rows: the daemon and the bench programs with the DMA rows none and pin-each, for measuring only'
	@echo 'make attack-dma      a hostile guest against each DMA strategy: what succeeded, and what stopped the rest; QUICK=1 SEED=1 ATTEMPTS=4000'
	@echo 'make format          let clang-format rewrite the sources'
	@echo 'make install         into PREFIX (/usr/local), honours DESTDIR'
	@echo 'make clean           remove build/'
	@echo
	@echo 'Variables: BUILD=build CC=gcc OPT="-O2 -g" PREFIX=/usr/local; TEST=pattern picks tests of make check.'

-include $(shell find $(BUILD) -path '$(BUILD)/asan' -prune -o -path '$(BUILD)/tsan' -prune -o -path '$(BUILD)/rows' -prune -o -type f -name '*.d' -print 2>/dev/null)
