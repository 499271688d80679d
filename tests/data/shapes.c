/* What tests/test_code_module.py looks at. Made by clang 14:
 *     clang -g -O1 -fdebug-compilation-dir=. -emit-llvm -c shapes.c -o shapes.bc */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double x, y;
} Point;

typedef struct Particle {
    Point at;
    float mass;
    int8_t charge;
    uint16_t tags[3];
    struct Particle *next;
} Particle;

struct __attribute__((packed)) Packed {
    char letter;
    double number;
};

struct Shape {
    int corners;
    union {
        int side;
        double radius;
    };
    struct {
        short first, second;
    } names;
};

enum colour { RED, GREEN = 5 };

int counter = 7;
double weights[4] = {1, 2, 3, 4};
Point origin = {0.5, -0.5};
const int limit = 99;
int table[2][3] = {{1, 2, 3}, {4, 5, 6}};
struct Packed packed = {'A', 2.5};

int add(int a, int b) { return a + b; }
uint8_t wrap(uint8_t a, unsigned char b) { return a + b; }
bool is_close(double a, double b) { return fabs(a - b) < 1e-9; }
int count(void) { return ++counter; }
int64_t fib(int64_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

double total(const double *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    return sum;
}

void scale(double *values, int64_t n, double by)
{
    for (int64_t i = 0; i < n; i++)
        values[i] *= by;
}

double norm(const Point *p) { return sqrt(p->x * p->x + p->y * p->y); }
Point middle(Point a, Point b) { return (Point){(a.x + b.x) / 2, (a.y + b.y) / 2}; }
void push(Particle *p, const Point *by) { p->at.x += by->x; p->at.y += by->y; p->tags[1]++; }

int first_letter(const char *word) { return word[0]; }
bool is_null(const void *anything) { return !anything; }
enum colour next_colour(enum colour c) { return c == RED ? GREEN : RED; }
double apply(double (*f)(double), double x) { return f(x); }
double half(double x) { return x / 2; }
double dot(double (*matrix)[2], const double vector[2]) { return matrix[1][0] * vector[0] + matrix[1][1] * vector[1]; }

struct Packed *get_packed(void) { return &packed; }
double number_of(const struct Packed *p) { return p->number; }
struct Packed copy_packed(struct Packed p) { return p; }
double describe(const struct Shape *s) { return s->corners + s->radius + s->names.second; }

__int128 huge(int a) { return (__int128)a << 100; }
