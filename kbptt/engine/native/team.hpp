/* Threads that go through time together, and the memory they work in.

   The rows of a pass (samples, or samples of windows) are shared out to teams, which never meet. The
   threads of a team share its rows: each has a slice of the units, the columns of the kernels that
   belong to them, and meets the others once a timestep, because h_{t−1}·U reads all of h_{t−1}. So
   that each reads a part of the kernels alone; that a few rows keep several threads busy; and that
   no gradient of a kernel is summed twice. A team of one thread has all units and meets nobody. */
#pragma once
#include "products.hpp"
#include "problem.hpp"

namespace kbptt {
namespace {

/* Memory, handed out in pieces that begin at cache lines. Without memory it only measures. */
class Arena {
    char *begin;

  public:
    int64_t used = 0;
    explicit Arena(char *memory) : begin(memory) {}

    template <class T> void take(T *&piece, int64_t elements) {
        piece = begin ? reinterpret_cast<T *>(begin + used) : nullptr;
        used += (elements * int64_t(sizeof(T)) + 63) / 64 * 64;
    }

    template <class T> void take_zeros(T *&piece, int64_t elements) {
        take(piece, elements);
        if (piece) fill_zeros(piece, elements);
    }
};

/* A thread's place in its team, and its share of the units: whole vectors but at the end. What a team
   has to agree on, such as the number of rows that go through time together, follows from the widest
   share. */
struct Slice {
    int64_t team, member, members, first, width, widest = 0;

    template <class T>
    Slice(const Problem<T> &p, int64_t thread, int64_t lanes)
        : team(thread / p.members), member(thread % p.members), members(p.members) {
        first = bound(p.units, member, lanes);
        width = bound(p.units, member + 1, lanes) - first;
        for (int64_t i = 0; i < members; i++) {
            const int64_t of = bound(p.units, i + 1, lanes) - bound(p.units, i, lanes);
            if (of > widest) widest = of;
        }
    }

    /* Where the share of a member begins of n columns. */
    int64_t bound(int64_t n, int64_t of, int64_t lanes) const {
        const int64_t at = (n + lanes - 1) / lanes * of / members * lanes;
        return at < n ? at : n;
    }
};

/* Where the threads of a team meet: two counters on a cache line of the team's own. They wait awake,
   as it is for less than a microsecond, but let others run after 50 pauses, one or two microseconds:
   if there are more runnable threads than cores, the one that is waited for may not be running. If
   `called_off` is not 0, a thread will not come: nobody waits any more, and the results are worth
   nothing. */
class Meeting {
    int64_t *const arrived, *const round, *const called_off;
    const int64_t members;

  public:
    template <class T>
    Meeting(const Problem<T> &p, const Slice &slice)
        : arrived(p.meetings ? p.meetings + 8 * slice.team : nullptr), round(arrived + 1),
          called_off(arrived + 2), members(slice.members) {}

    void wait() const {
        if (members == 1) return;
        const int64_t now = __atomic_load_n(round, __ATOMIC_ACQUIRE);
        if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == members) {
            __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
            __atomic_store_n(round, now + 1, __ATOMIC_RELEASE);
            return;
        }
        for (int64_t turns = 0; __atomic_load_n(round, __ATOMIC_ACQUIRE) == now; turns++) {
            if (turns < 50)
                rest();
            else if (__atomic_load_n(called_off, __ATOMIC_RELAXED))
                return;
            else
                std::this_thread::yield();
        }
    }
};

}  // namespace
}  // namespace kbptt
