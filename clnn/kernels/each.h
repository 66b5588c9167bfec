// EACH(i, n) { ... } does something for each i of the elements 0 .. n - 1 that are this work-item's: RUN neighbours.
//
// On a GPU RUN is 1, one work-item an element. On a CPU it is many: compilers make vectors of a loop, but not of
// work-items each of which tests first whether it is past the end.

#ifndef RUN
#define RUN 1
#endif

#define EACH(i, n) \
    for (int i = get_global_id(0) * RUN, i##_end = (n) - i > RUN ? i + RUN : (n); i < i##_end; i++)
