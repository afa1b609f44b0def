/* Reads images of handwritten digits and prints what the network takes each for.
 *
 * An image is 64 whole numbers from 0 to 16, row by row, in text. The weights are inside the program, the network works
 * on `network` and on nothing else: a second thread with a context of its own could classify at the same time.
 */
#include <stdio.h>

#include "digits.h"

static digits_context network;
static float image[DIGITS_X_COUNT], scores[DIGITS_OUTPUT_COUNT];

/* 1 if there was another whole image */
static int read_image(void)
{
    for (int i = 0; i < DIGITS_X_COUNT; i++) {
        int value;
        if (scanf("%d", &value) != 1)
            return 0;
        image[i] = (float)value / 16;
    }
    return 1;
}

static int best(void)
{
    int found = 0;
    for (int i = 1; i < DIGITS_OUTPUT_COUNT; i++)
        if (scores[i] > scores[found])
            found = i;
    return found;
}

int main(void)
{
    int error = digits_init(&network, digits_weights);
    if (error) {
        fprintf(stderr, "the network and its weights do not fit (%d)\n", error);
        return 1;
    }
    while (read_image()) {
        digits_run(&network, image, scores);
        printf("%d\n", best());
    }
    return ferror(stdin) != 0;
}
