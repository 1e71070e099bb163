/* Conversations with a model: templates, the text on its way out, the loop of drawing.
 * The public face is include/runt/runt.h; this is what other rooms need besides. */
#ifndef RUNT_TALK_H
#define RUNT_TALK_H

#include "runt/runt.h"

/* What begins a turn of the template `turns`, at the start of a line: also in texts to
 * train on (src/train/dialogue.h). */
#define TALK_USER "User:"
#define TALK_BOT "Bot:"

/* The template that a Jinja program (tokenizer.chat_template) means, or NULL. */
const runt_template *talk_template_detect(const char *jinja);
/* The template as a Jinja program, for model files; NULL for `none`. */
const char *talk_template_jinja(const runt_template *t);

#endif
