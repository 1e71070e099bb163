/* Which level of kernels is chosen.  On emulated processors (tools/test_emulated.sh)
 * RUNT_EXPECT_LEVEL says which it must be; elsewhere it is what cpu_detect found. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "kern/kern.h"

#include <stdlib.h>

static void test_chosen(void **state)
{
    (void)state;
    enum cpu_level best;
    const struct kern_table *t = NULL;
    const char *want = getenv("RUNT_EXPECT_LEVEL");
    assert_int_equal(cpu_detect(&best, NULL), 0);
    assert_int_equal(kern_table_get(&t, NULL), 0);
    print_message("# level %s\n", cpu_level_name(t->level));
    assert_string_equal(cpu_level_name(t->level), want ? want : cpu_level_name(best));
}

int main(void)
{
    unsetenv("RUNT_CPU");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chosen)};
    return cmocka_run_group_tests_name("kern_level", tests, NULL, NULL);
}
