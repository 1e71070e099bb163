/* Running text for a terminal, broken between words as it comes. */
#ifndef RUNT_CLI_WRAP_H
#define RUNT_CLI_WRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A word is held back until it ends, and goes to a new line where it does not fit.  A
 * word longer than a line is broken where the line ends; beside characters that take
 * two columns (Chinese, Japanese, emoji) a line may end anywhere.  Control characters
 * become U+FFFD, so that no text drives the terminal. */
struct wrap {
    FILE *out;
    size_t
        width; /* columns of a line; may change as it goes; 0: text passes as it is */
    size_t indent; /* blanks before every line but the first */
    size_t column; /* where the next character goes */
    /* what is held: blanks, and a word behind them */
    size_t n_blanks, word_columns, n_word;
    bool wide; /* the word is a character of two columns */
    char word[1024];
};

/* Valid UTF-8, in pieces that cut no character. */
void wrap_put(struct wrap *w, const char *text, size_t n);
/* Write what is held, but for blanks at the end. */
void wrap_end(struct wrap *w);

/* Columns that a text of one line takes, whatever its bytes are. */
size_t wrap_columns(const char *text, size_t n);

#endif
