/* The emulation of a GPU itself: what kernels may not do is noticed, in every order,
 * and what they may do is not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "emu.h"
#include "emu_bad.h"

#include <string.h>

/* NULL: nothing is wrong. */
static const char *const words[BAD_KERNELS] = {
    [BAD_BLOCKS_WRITE_THE_SAME] = "two threads write",
    [BAD_BLOCK_READS_WHAT_ANOTHER_WROTE] = "write",
    [BAD_NO_BARRIER_BEHIND_WRITES] = "write",
    [BAD_NO_BARRIER_BEHIND_READS] = "write",
    [BAD_SYNCWARP_FOR_A_BLOCK] = "write",
    [BAD_SHUFFLE_FOR_A_BARRIER] = "write",
    [BAD_HALVES_AND_WHOLE] = "write",
    [BAD_READS_SHARED_UNWRITTEN] = "shared memory that nobody wrote",
    [BAD_READS_UNWRITTEN] = "reads what nobody wrote",
    [BAD_WRITES_BEYOND] = "writes beyond",
    [BAD_READS_BEFORE] = "reads beyond",
    [BAD_BEYOND_SHARED] = "writes beyond its shared memory",
    [BAD_BEYOND_ITS_ARRAY] = "an index beyond its array",
    [BAD_NOT_ALIGNED] = "not aligned",
    [BAD_HOST_MEMORY] = "a kernel reads 4 bytes of the host's memory",
    [BAD_ENDS_BEFORE_A_BARRIER] = "threads end while others wait",
    [BAD_DIFFERENT_PLACES] = "different places",
    [BAD_LANES_MISSING] = "not all of them",
    [BAD_HOST_READS_DEVICE] = "the host touches",
    [BAD_COPY_BEYOND] = "beyond what was allocated",
    [BAD_COPY_UNWRITTEN] = "reads what nobody wrote",
    [BAD_COPY_WRONG_WAY] = "wrong way",
    [BAD_FREES_TWICE] = "not allocated",
    [BAD_TRANSPOSED_STEP] = "multiple of 16 bytes",
    [BAD_MISALIGNED_SQUARE] = "aligned to 32",
};

static void what_is_forbidden_is_noticed(void **state)
{
    (void)state;
    for (int order = EMU_UP; order < EMU_ORDERS; order++)
        for (int which = 0; which < BAD_KERNELS; which++) {
            emu_set_order((enum emu_order)order);
            bool ok = emu_bad((enum bad)which);
            const char *trouble = emu_trouble();
            if (which == BAD_LAUNCH_TOO_MUCH_SHARED)
                assert_false(ok);
            if (words[which] && !trouble)
                fail_msg("%d in order %d: nothing was noticed, not '%s'", which, order,
                         words[which]);
            if (words[which] ? !strstr(trouble, words[which]) : trouble != NULL)
                fail_msg("%d in order %d: '%s'", which, order, trouble);
            assert_int_equal(emu_live(), 0);
            emu_fail("", -1); /* a device that hangs is lost */
        }
    emu_set_order(EMU_UP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_forbidden_is_noticed),
    };
    return cmocka_run_group_tests_name("emu", tests, NULL, NULL);
}
