/* Owns what the server does where nobody says anything. */
#include "serve/serve.h"

struct serve_options serve_defaults(void)
{
    return (struct serve_options){.sampler = runt_sampler_defaults(),
                                  .host = "127.0.0.1",
                                  .port = 8080,
                                  .max_waiting = 128,
                                  .max_body = 1 << 20,
                                  .max_connections = 1024,
                                  .request_seconds = 600,
                                  .read_seconds = 20,
                                  .idle_seconds = 60,
                                  .drain_seconds = 30};
}
