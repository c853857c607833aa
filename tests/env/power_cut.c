// Preloaded into a process that writes to a store: notes how much of each file is on disk after every sync, so that a test
// can take away the rest, as a power cut may. A sync takes longer here, so that a kill falls into one.
//
// Each line of the file named by POWER_CUT_LOG is "<bytes> <path>\n". It is written before the sync returns, so nothing can
// have been acknowledged because of a sync that is not in it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const struct timespec SYNC_TAKES = {.tv_sec = 0, .tv_nsec = 3 * 1000 * 1000};

static void note(int file, off_t bytes) {
  const char *log_path = getenv("POWER_CUT_LOG");
  char link[64], path[PATH_MAX], line[PATH_MAX + 32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (log_path == NULL || length < 0) return;
  path[length] = '\0';
  int log = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  int line_bytes = snprintf(line, sizeof line, "%lld %s\n", (long long)bytes, path);
  // A line that is not written whole takes more away than a power cut would: the test fails, it does not pass.
  if (log < 0 || write(log, line, line_bytes) != line_bytes) abort();
  close(log);
}

static int sync_and_note(int file, const char *name) {
  int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  // What is written later may or may not be part of this sync: only what is before it counts.
  off_t bytes = lseek(file, 0, SEEK_CUR);
  nanosleep(&SYNC_TAKES, NULL);
  int result = sync(file);
  if (result == 0 && bytes >= 0) note(file, bytes);
  return result;
}

int fsync(int file) { return sync_and_note(file, "fsync"); }
int fdatasync(int file) { return sync_and_note(file, "fdatasync"); }
