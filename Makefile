# The front door.  Meson does the building (meson.build); tools/setup.sh installs the
# Debian packages that are missing, and says which.
.PHONY: all demo test test-long bench install fuzz format clean setup-build setup-test

all: setup-build
	@test -f build/build.ninja || { mkdir -p build; meson setup build >build/setup.log; } || \
	    { tail -20 build/setup.log; exit 1; }
	@ninja -C build runt

demo: all
	@python3 tools/demo.py

test: setup-test
	@tools/test.sh

test-long: setup-test
	@tools/test_long.sh

bench: setup-test
	@test -f build/build.ninja || meson setup build >/dev/null
	@ninja -C build tests/test_kern tests/test_kern_tile >/dev/null
	@build/tests/test_kern_tile --bench $(LEVELS)
	@build/tests/test_kern --bench $(LEVELS)

fuzz: setup-test
	@tools/fuzz.sh

install: all
	@meson install -C build

format:
	clang-format -i $$(git ls-files '*.c' '*.h' | grep -v unicode_tables)

clean:
	rm -rf build

setup-build setup-test:
	@tools/setup.sh $(@:setup-%=%)
