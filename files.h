/* files.h - text and files: all that is read and written, without a word about language models.
 *
 *   text         spans of bytes, growing lists, UTF-8 (RFC 3629)
 *   files        mapped reading, standard input and pipes, whole-file output, locks
 *   JSON         (RFC 8259) checked once, then walked over as text
 *   safetensors  named tensors in and out
 *
 * Every input is hostile: what is cut, lies about its size or is not what it should be ends in `die` with the name of
 * the file and what is wrong with it.
 */
#ifndef FILES_H
#define FILES_H

#include "tensor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */
typedef struct { const char *data; size_t size; } Text; /* a span of bytes, not NUL-terminated */

static inline Text text_of(const char *s) { return (Text){s, strlen(s)}; }
static inline bool text_equal(Text a, Text b) {
    return a.size == b.size && (!a.size || !memcmp(a.data, b.data, a.size));
}
static inline bool text_starts(Text a, const char *word) {
    return a.size >= strlen(word) && !memcmp(a.data, word, strlen(word));
}
static inline bool text_ends(Text a, const char *word) {
    return a.size >= strlen(word) && !memcmp(a.data + a.size - strlen(word), word, strlen(word));
}
static inline bool text_is(Text text, const char *word) { return text_equal(text, text_of(word)); }
static inline char *text_string(Text text) { /* a NUL-terminated copy */
    char *s = allocate(text.size + 1);
    if (text.size) memcpy(s, text.data, text.size);
    s[text.size] = 0;
    return s;
}
static inline char *text_line(Text text) { /* the same for a table: a tab or line end becomes a space */
    char *s = text_string(text);
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)s[i] < ' ') s[i] = ' ';
    return s;
}
/* A list of `count` items with room for one more: it doubles where its count is a power of two. */
static inline void *grow(void *items, int count, size_t size) {
    if (count & (count - 1)) return items;
    if (count > INT32_MAX / 2) die("too many items");
    void *larger = allocate(size * (count ? 2 * (size_t)count : 1));
    return count ? memcpy(larger, items, size * (size_t)count) : larger;
}

typedef struct { int *id; int count; } Ids;
static inline void ids_push(Ids *ids, int id) {
    ids->id = grow(ids->id, ids->count, sizeof id);
    ids->id[ids->count++] = id;
}
typedef struct { Text *at; int count; } Texts;
static inline void texts_push(Texts *list, Text text) {
    list->at = grow(list->at, list->count, sizeof text);
    list->at[list->count++] = text;
}
static inline Texts split(Text text, char separator) { /* the parts of a text between separators */
    Texts parts = {0};
    for (size_t at = 0, i = 0; i <= text.size; i++)
        if (i == text.size || text.data[i] == separator) {
            texts_push(&parts, (Text){text.data + at, i - at});
            at = i + 1;
        }
    return parts;
}
static inline Text trimmed_end(Text text) { /* without spaces at its end */
    while (text.size && text.data[text.size - 1] == ' ') text.size--;
    return text;
}
static inline bool is_blank(char c) { return c && strchr(" \t\v\f\r\n", c); }
static inline Text trimmed(Text text) { /* without white space at both ends */
    while (text.size && is_blank(text.data[0])) text.data++, text.size--;
    while (text.size && is_blank(text.data[text.size - 1])) text.size--;
    return text;
}
static inline bool texts_contain(const Texts *list, Text text) {
    for (int i = 0; i < list->count; i++)
        if (text_equal(list->at[i], text)) return true;
    return false;
}
static inline int compare_texts(const void *a, const void *b) { /* for qsort and bsearch: the order of the bytes */
    const Text *x = a, *y = b;
    const size_t common = x->size < y->size ? x->size : y->size;
    const int order = common ? memcmp(x->data, y->data, common) : 0;
    return order ? order : (x->size > y->size) - (x->size < y->size);
}
/* A hash of what was hashed before (0 at the start) and a text, which may be large: FNV-1a over words of eight bytes,
 * with a shift so that the high bits of a word reach the low bits of the hash. */
static inline uint64_t hash_text(uint64_t hash, Text text) {
    hash = (hash ^ text.size) * 0x100000001B3u + 0xCBF29CE484222325u;
    for (size_t i = 0; i < text.size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, text.data + i, text.size - i < 8 ? text.size - i : 8);
        hash = (hash ^ word) * 0x100000001B3u;
        hash ^= hash >> 32;
    }
    return hash;
}

/* The bytes of a code point, by the first of them; 0: no code point begins so. */
static inline size_t utf8_length(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC0) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    return lead < 0xF8 ? 4 : 0;
}
/* Reads the code point that starts at s, of which n bytes are left. Returns its length in bytes; 0 if it is not valid:
 * cut short, longer than needed, half of a surrogate pair, or beyond the last code point. */
static inline size_t utf8_decode(const char *s, size_t n, uint32_t *code) {
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000}; /* code point that needs so many bytes */
    if (n == 0) return 0;
    const unsigned char lead = (unsigned char)s[0];
    const size_t length = utf8_length(lead);
    if (length == 0 || length > n) return 0;
    uint32_t c = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        unsigned char byte = (unsigned char)s[i];
        if ((byte & 0xC0) != 0x80) return 0;
        c = c << 6 | (byte & 0x3F);
    }
    if (c < smallest[length] || (c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF) return 0;
    *code = c;
    return length;
}

/* Writes a code point's 1 to 4 bytes to s and returns how many. */
static inline size_t utf8_encode(uint32_t code, char *s) {
    static const uint32_t lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t length = code < 0x80 ? 1 : 2;
    if (code >= 0x800) length = code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6) s[i] = (char)(0x80 | (code & 0x3F));
    s[0] = (char)(lead[length] | code);
    return length;
}
static inline bool utf8_valid(Text text) {
    uint32_t code;
    for (size_t i = 0, length; i < text.size; i += length)
        if (!(length = utf8_decode(text.data + i, text.size - i, &code))) return false;
    return true;
}
/* Cuts the first line off the text, without its end and white space before that; false if nothing is left. */
static inline bool next_line(Text *rest, Text *line) {
    if (!rest->size) return false;
    const char *end = memchr(rest->data, '\n', rest->size);
    *line = (Text){rest->data, end ? (size_t)(end - rest->data) : rest->size};
    const size_t used = line->size + (end != NULL);
    *rest = (Text){rest->data + used, rest->size - used};
    while (line->size && memchr(" \t\v\f\r", line->data[line->size - 1], 5)) line->size--;
    return true;
}

/* Something that the reader of the output should know, in one line on stderr; the program goes on. */
__attribute__((format(printf, 1, 2))) static inline void note(const char *form, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, form);
    vsnprintf(line, sizeof line, form, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "note: %s\n", text_line(text_of(line)));
}

/* ---- files ------------------------------------------------------------------------------------------------------- */
static inline bool file_exists(const char *path) { return access(path, F_OK) == 0; }
static inline void make_folder(const char *path) {
    if (mkdir(path, 0777) && (errno != EEXIST || !file_exists(format("%s/.", path))))
        die("%s: %s", path, strerror(errno));
}

/* A copy of what comes from a pipe or a terminal, up to its end, in a file without a name. */
static inline int stream_copy(int descriptor, const char *path) {
    enum { MOST = 1 << 30 };
    static char buffer[1 << 16];
    FILE *copy = tmpfile(); /* never closed: the C library removes it when the program ends */
    size_t size = 0;
    ssize_t count;
    if (!copy) die("%s: no temporary file: %s", path, strerror(errno));
    while ((count = read(descriptor, buffer, sizeof buffer)) != 0) {
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) die("%s: %s", path, strerror(errno));
        if ((size += (size_t)count) > MOST) die("%s: longer than %d MiB", path, MOST >> 20);
        if (fwrite(buffer, 1, (size_t)count, copy) < (size_t)count) die("%s: %s", path, strerror(errno));
    }
    if (fflush(copy)) die("%s: %s", path, strerror(errno));
    return fileno(copy);
}
static inline const char *input_name(const char *path) { return strcmp(path, "-") ? path : "standard input"; }
/* What `git clone` leaves in the place of a large file if the extension that fetches it is not installed. */
static inline void check_not_pointer(Text file, const char *path) {
    if (text_starts(file, "version https://git-lfs.github.com/"))
        die("%s: a Git LFS pointer, not the file itself: run 'git lfs pull' in its folder", path);
}
/* A whole file, or a pipe up to its end; "-" is standard input. Mapped, private and writable: pages that nobody writes
 * to are shared with the page cache, a weight that is trained is copied on its first write, and the file never
 * changes. Ends in an error if the file cannot be read or is a folder. */
static inline Text map_file(const char *path) {
    struct stat status;
    static bool input_taken;
    const bool standard_input = !strcmp(path, "-");
    int descriptor = standard_input ? STDIN_FILENO : open(path, O_RDONLY);
    path = input_name(path);
    if (standard_input && input_taken) die("standard input can be read only once");
    input_taken |= standard_input;
    if (descriptor < 0 || fstat(descriptor, &status)) die("%s: %s", path, strerror(errno));
    if (S_ISDIR(status.st_mode)) die("%s: a folder, not a file", path);
    const int opened = descriptor;
    if (standard_input || !S_ISREG(status.st_mode)) { /* standard input: from where it stands */
        descriptor = stream_copy(opened, path);
        if (fstat(descriptor, &status)) die("%s: %s", path, strerror(errno));
    }
    Text text = {"", (size_t)status.st_size};
    if (text.size) text.data = mmap(NULL, text.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    if (text.data == MAP_FAILED) die("%s: %s", path, strerror(errno));
    if (!standard_input) close(opened);
    check_not_pointer(text, path);
    return text;
}
/* A file of text: the same, without the byte order mark that some editors put first. */
static inline Text read_file(const char *path) {
    const Text file = map_file(path);
    const size_t mark_size = text_starts(file, "\xEF\xBB\xBF") ? 3 : 0;
    return (Text){file.data + mark_size, file.size - mark_size};
}
static inline bool is_regular(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISREG(status.st_mode);
}
/* Whether two paths lead to the same existing file or folder. */
static inline bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
static inline void unmap_file(Text text) { /* from the start of the page: a byte order mark may have been left out */
    const size_t before = (uintptr_t)text.data % (size_t)sysconf(_SC_PAGESIZE);
    if (text.size) munmap((void *)(text.data - before), text.size + before);
}

/* A file is written beside its place and renamed into it when it is whole. */
typedef struct { FILE *stream; const char *path, *part; } Output;
static inline Output output_open(const char *path) {
    Output out = {NULL, path, format("%s.part", path)};
    if (file_exists(path) && !is_regular(path)) die("%s: not a regular file", path);
    out.stream = fopen(out.part, "wb");
    if (!out.stream) die("%s: %s", out.part, strerror(errno));
    return out;
}
static inline void output_close(Output out) {
    bool failed = ferror(out.stream) != 0;
    failed |= fclose(out.stream) != 0;
    if (failed || rename(out.part, out.path)) {
        const int error = errno;
        remove(out.part);
        die("%s: %s", out.path, strerror(error));
    }
}
/* A lock held by this process until it ends or unlocks: two runs that write to one place would spoil each other's
 * files. A second process is refused. Locks of POSIX's fcntl; the file stays if the process is killed, without a lock.
 * */
typedef struct { int descriptor; const char *path; } Lock;
static inline Lock lock_file(const char *path) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat opened, present;
    for (;;) {
        const Lock lock = {open(path, O_RDWR | O_CREAT, 0666), path};
        if (lock.descriptor < 0) die("%s: %s", path, strerror(errno));
        if (fcntl(lock.descriptor, F_SETLK, &whole)) {
            if (errno == EACCES || errno == EAGAIN) die("%s: another run is writing here", path);
            die("%s: %s", path, strerror(errno));
        }
        if (!fstat(lock.descriptor, &opened) && !stat(path, &present) && opened.st_ino == present.st_ino) return lock;
        close(lock.descriptor); /* its owner has just removed it */
    }
}
static inline void unlock_file(Lock lock) {
    remove(lock.path);
    close(lock.descriptor);
}
static inline Texts read_lines(const char *path) { /* the lines that are not empty */
    Texts lines = {0};
    Text rest = read_file(path);
    if (!utf8_valid(rest)) die("%s: not valid UTF-8", path);
    for (Text line; next_line(&rest, &line);)
        if (line.size) texts_push(&lines, line);
    return lines;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */
/* JSON stays text. json_value checks one value and returns where it ends (NULL: not JSON); after json_check has
 * accepted a whole text, its parts are found by walking over it again. */
static inline const char *json_space(const char *s, const char *end) {
    while (s < end && (*s == ' ' || *s == '\t' || *s == '\n' || *s == '\r')) s++;
    return s;
}
static inline const char *json_digits(const char *s, const char *end) { /* one or more */
    const char *start = s;
    while (s < end && *s >= '0' && *s <= '9') s++;
    return s > start ? s : NULL;
}
static inline const char *json_value(const char *s, const char *end, int depth) {
    s = json_space(s, end);
    if (s >= end || depth > 64) return NULL;
    if (*s == '"') {
        for (s++; s < end && *s != '"'; s++) {
            if ((unsigned char)*s < 0x20) return NULL;
            if (*s != '\\') continue;
            if (++s >= end || !strchr("\"\\/bfnrtu", *s) || !*s) return NULL;
            if (*s == 'u') {
                for (int i = 0; i < 4; i++)
                    if (++s >= end || !*s || !strchr("0123456789abcdefABCDEF", *s)) return NULL;
            }
        }
        return s < end ? s + 1 : NULL;
    }
    if (*s == '{' || *s == '[') {
        const char close = *s == '{' ? '}' : ']';
        s = json_space(s + 1, end);
        if (s < end && *s == close) return s + 1;
        while (s < end) {
            if (close == '}') {
                s = json_space(s, end);
                if (s >= end || *s != '"' || !(s = json_value(s, end, depth + 1))) return NULL;
                s = json_space(s, end);
                if (s >= end || *s++ != ':') return NULL;
            }
            if (!(s = json_value(s, end, depth + 1))) return NULL;
            s = json_space(s, end);
            if (s < end && *s == close) return s + 1;
            if (s >= end || *s++ != ',') return NULL;
        }
        return NULL;
    }
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++)
        if (text_starts((Text){s, (size_t)(end - s)}, words[i])) return s + strlen(words[i]);
    if (*s == '-') s++;
    if (s < end && *s == '0') s++;
    else if (!(s = json_digits(s, end))) return NULL;
    if (s < end && *s == '.' && !(s = json_digits(s + 1, end))) return NULL;
    if (s < end && (*s == 'e' || *s == 'E')) {
        s++;
        if (s < end && (*s == '+' || *s == '-')) s++;
        s = json_digits(s, end);
    }
    return s;
}
static inline void json_check(Text json, const char *file, int line) { /* line 0: the whole file is one text */
    const char *end = json.data + json.size, *s = json_value(json.data, end, 0);
    const char *wrong = !utf8_valid(json) ? "UTF-8" : !s || json_space(s, end) != end ? "JSON" : NULL;
    if (wrong && line) die("%s:%d: not valid %s", file, line, wrong);
    if (wrong) die("%s: not valid %s", file, wrong);
}

/* The next member of an object or element of an array, for a text that json_check has accepted: *position is 0 at
 * the start; the key (empty in an array) is without its quotes, with its escapes, the value as it stands. */
static inline bool json_next(Text container, size_t *position, Text *key, Text *value) {
    const char *end = container.data + container.size, *s = json_space(container.data, end);
    if (s >= end || (*s != '{' && *s != '[')) return false;
    const bool object = *s == '{';
    s = json_space(*position ? container.data + *position : s + 1, end);
    if (*position && *s == ',') s = json_space(s + 1, end);
    if (*s == '}' || *s == ']') return false;
    *key = (Text){"", 0};
    if (object) {
        const char *after = json_value(s, end, 0);
        *key = (Text){s + 1, (size_t)(after - s) - 2};
        s = json_space(json_space(after, end) + 1, end);
    }
    const char *after = json_value(s, end, 0);
    *value = (Text){s, (size_t)(after - s)};
    *position = (size_t)(after - container.data);
    return true;
}
static inline bool json_is_string(Text value) { return value.size && value.data[0] == '"'; }
static inline uint32_t json_hex(const char *s) { /* four digits */
    return (uint32_t)strtoul((char[]){s[0], s[1], s[2], s[3], 0}, NULL, 16);
}
static inline Text json_string(Text value) { /* without quotes and escapes; a lone surrogate becomes U+FFFD */
    char *out = allocate(value.size);
    size_t size = 0;
    static const char names[] = "bfnrt", codes[] = "\b\f\n\r\t";
    for (const char *s = value.data + 1, *end = value.data + value.size - 1; s < end;) {
        const char c = *s++, escape = c == '\\' ? *s++ : 0; /* 0: none, and `simple` means nothing */
        const char *simple = strchr(names, escape);
        if (escape != 'u') {
            out[size] = escape ? escape : c;
            if (escape && simple) out[size] = codes[simple - names];
            size++;
            continue;
        }
        uint32_t code = json_hex(s), low;
        s += 4;
        if (code >= 0xD800 && code < 0xDC00 && end - s >= 6 && s[0] == '\\' && s[1] == 'u' &&
            (low = json_hex(s + 2)) >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            s += 6;
        }
        size += utf8_encode(code >= 0xD800 && code < 0xE000 ? 0xFFFD : code, out + size);
    }
    return (Text){out, size};
}
/* A key without its escapes: "\\u0061" is "a". */
static inline Text json_key(Text key) {
    if (!key.size || !memchr(key.data, '\\', key.size)) return key;
    return json_string((Text){key.data - 1, key.size + 2}); /* with its quotes */
}
static inline bool json_key_is(Text key, const char *name) {
    Mark before = mark();
    const bool equal = text_is(json_key(key), name);
    release(before);
    return equal;
}
/* The value of a member; of several with this name the last, as in other programs. */
static inline bool json_member(Text object, const char *name, Text *value) {
    Text key, member;
    bool found = false;
    *value = (Text){"", 0};
    for (size_t position = 0; json_next(object, &position, &key, &member);)
        if (json_key_is(key, name)) *value = member, found = true;
    return found;
}
static inline bool json_is_object(Text value) { return value.size && value.data[0] == '{'; }
static inline int json_count(Text container) { /* of members or elements */
    Text key, value;
    int count = 0;
    for (size_t position = 0; json_next(container, &position, &key, &value);) count++;
    return count;
}
/* A file that is one JSON object. */
static inline Text read_json_object(const char *path) {
    const Text file = read_file(path);
    const char *start = json_space(file.data, file.data + file.size);
    const Text object = {start, file.size - (size_t)(start - file.data)};
    json_check(object, path, 0);
    if (!json_is_object(object)) die("%s: not a JSON object", path);
    return object;
}
static inline const char *json_quote(const char *s) { /* a JSON string of s */
    char *out = allocate(6 * strlen(s) + 3), *to = out;
    *to++ = '"';
    for (; *s; s++)
        if (*s == '"' || *s == '\\') *to++ = '\\', *to++ = *s;
        else if ((unsigned char)*s < 0x20) to += sprintf(to, "\\u%04x", (unsigned)*s);
        else *to++ = *s;
    memcpy(to, "\"", 2);
    return out;
}
/* A number, copied out first because the text has no NUL at its end; NaN if it is none. */
static inline double json_number(Text value) {
    char digits[64];
    if (!value.size || value.size >= sizeof digits || !strchr("-0123456789", value.data[0])) return NAN;
    memcpy(digits, value.data, value.size);
    digits[value.size] = 0;
    char *end;
    const double number = strtod(digits, &end);
    return end == digits + value.size && isfinite(number) && !strpbrk(digits, "xX") ? number : NAN;
}
static inline int json_int(Text value) { /* -1 unless it is a whole number from 0 to 2^31 - 1 */
    const double number = json_number(value);
    return number >= 0 && number <= INT32_MAX && number == floor(number) ? (int)number : -1;
}

/* ---- safetensors ------------------------------------------------------------------------------------------------- */
/* safetensors: 8 bytes length of the header (little-endian), the header (JSON: name -> dtype, shape, data_offsets),
 * the elements. Opening checks all entries, as the reference implementation does. */
typedef struct { const char *path; Text file, header, data; } Safetensors;

static const struct { const char *name; int bits; } element_types[] = {
    {"F32", 32}, {"F16", 16}, {"BF16", 16}, {"F64", 64}, {"I64", 64}, {"I32", 32}, {"I16", 16}, {"I8", 8}, {"U64", 64},
    {"U32", 32}, {"U16", 16}, {"U8", 8}, {"BOOL", 8}, {"C64", 64}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
enum { ELEMENT_TYPES = sizeof element_types / sizeof *element_types };

/* What the header says of a tensor. */
typedef struct {
    Text name;
    int type;              /* of element_types */
    int dimensions;
    double size[2];        /* the first two dimensions */
    double elements;       /* their product with all others; exact, or too large for any file */
    double begin, end;     /* of its bytes in the data */
} Entry;

static inline bool is_whole(double x) { return x >= 0 && x <= 9007199254740992.0 && x == floor(x); }

static inline Entry entry_parse(const Safetensors *st, Text name, Text json) {
    Entry e = {.name = name, .type = -1, .size = {1, 1}, .elements = 1};
    Text dtype, shape, offsets, key, value;
    const char *shown = text_line(name);
    if (!json_is_object(json) || !json_member(json, "dtype", &dtype) || !json_member(json, "shape", &shape) ||
        !json_member(json, "data_offsets", &offsets))
        die("%s: %s: no dtype, shape or data_offsets", st->path, shown);
    for (int k = 0; k < ELEMENT_TYPES; k++)
        if (json_is_string(dtype) && text_is(json_string(dtype), element_types[k].name)) e.type = k;
    if (e.type < 0) die("%s: %s: unknown type %s", st->path, shown, text_line(dtype));
    for (size_t position = 0; json_next(shape, &position, &key, &value); e.dimensions++) {
        const double size = json_number(value);
        if (!is_whole(size)) die("%s: %s: its shape is %s", st->path, shown, text_line(shape));
        if (e.dimensions < 2) e.size[e.dimensions] = size;
        e.elements *= size;
    }
    double range[2] = {-1, -1};
    int count = 0;
    for (size_t position = 0; json_next(offsets, &position, &key, &value); count++)
        if (count < 2) range[count] = json_number(value);
    e.begin = range[0], e.end = range[1];
    if (count != 2 || shape.data[0] != '[' || !is_whole(e.begin) || !is_whole(e.end) ||
        e.end > (double)st->data.size || e.begin + e.elements * element_types[e.type].bits / 8 != e.end)
        die("%s: %s: its data_offsets do not fit its shape and the file", st->path, shown);
    return e;
}
static inline int compare_names(const void *a, const void *b) {
    return compare_texts(&((const Entry *)a)->name, &((const Entry *)b)->name);
}
static inline int compare_begins(const void *a, const void *b) { /* of two that begin together first the empty one */
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return (x->begin > y->begin) - (x->begin < y->begin);
    return (x->end > y->end) - (x->end < y->end);
}
static inline void check_metadata(const Safetensors *st, Text metadata) { /* an object of strings, or null */
    Text key, value;
    if (!json_is_object(metadata) && !text_is(metadata, "null")) die("%s: its metadata are no object", st->path);
    for (size_t position = 0; json_next(metadata, &position, &key, &value);)
        if (!json_is_string(value)) die("%s: metadata '%s': not a string", st->path, text_line(json_key(key)));
}
/* Every name occurs once; the tensors lie one after the other and fill the file. */
static inline void check_entries(const Safetensors *st) {
    Mark before = mark();
    Text key, value;
    int count = 0;
    Entry *entry = allocate(sizeof *entry * (size_t)(json_count(st->header) + 1));
    for (size_t position = 0; json_next(st->header, &position, &key, &value);) {
        if (json_key_is(key, "__metadata__")) check_metadata(st, value);
        else entry[count++] = entry_parse(st, json_key(key), value);
    }
    qsort(entry, (size_t)count, sizeof *entry, compare_names);
    for (int i = 1; i < count; i++)
        if (!compare_names(&entry[i - 1], &entry[i])) die("%s: two tensors %s", st->path, text_line(entry[i].name));
    qsort(entry, (size_t)count, sizeof *entry, compare_begins);
    double end = 0;
    for (int i = 0; i < count; end = entry[i++].end)
        if (entry[i].begin != end)
            die("%s: %s begins at %.0f, the tensor before it ends at %.0f", st->path, text_line(entry[i].name),
                entry[i].begin, end);
    if (end != (double)st->data.size)
        die("%s: %zu bytes of elements, its tensors have %.0f", st->path, st->data.size, end);
    release(before);
}
static inline Safetensors safetensors_open(const char *path) {
    Text file = map_file(path);
    uint64_t length = 0;
    if (file.size < 8) die("%s: not a safetensors file: it has %zu bytes", path, file.size);
    for (int i = 7; i >= 0; i--) length = length << 8 | (unsigned char)file.data[i];
    if (length > file.size - 8)
        die("%s: its header should have %ju bytes, the file has %zu", path, (uintmax_t)length, file.size);
    Safetensors st = {
        path, file, {file.data + 8, (size_t)length}, {file.data + 8 + length, file.size - 8 - (size_t)length}};
    json_check(st.header, path, 0);
    if (*json_space(st.header.data, st.header.data + st.header.size) != '{')
        die("%s: its header is not an object", path);
    check_entries(&st);
    return st;
}
/* IEEE's 16 bits as a float: exponent and fraction are moved to their places, then the exponent's bias is mended. */
static inline float float_of_half(uint16_t half) {
    const uint32_t size = (uint32_t)(half & 0x7FFF) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t bits = size | ((half & 0x7C00) == 0x7C00 ? 0x7F800000u : 0); /* infinity or NaN */
    float x;
    memcpy(&x, &bits, sizeof x);
    if ((half & 0x7C00) != 0x7C00) x *= 0x1p112f; /* exact, for subnormal numbers too */
    memcpy(&bits, &x, sizeof bits);
    bits |= sign;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float float_of_brain(uint16_t brain) { /* bfloat16: the upper half of a float */
    const uint32_t bits = (uint32_t)brain << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
/* Element i of a tensor whose bytes begin at `from`. */
static inline float element_at(const char *from, const char *type, size_t i) {
    float element;
    uint16_t half;
    if (!strcmp(type, "F32")) {
        memcpy(&element, from + 4 * i, 4);
        return element;
    }
    memcpy(&half, from + 2 * i, 2);
    return !strcmp(type, "F16") ? float_of_half(half) : float_of_brain(half);
}
/* The tensor `name`: one dimension gives (1, n). False if it is not in the file. In float, elements of type F32 are the
 * mapped file itself (where it is aligned); all others are a converted copy. */
static inline bool safetensors_find(const Safetensors *st, const char *name, Tensor *t) {
    Text json;
    if (!json_member(st->header, name, &json)) return false;
    const Entry e = entry_parse(st, text_of(name), json);
    const char *type = element_types[e.type].name, *from = st->data.data + (size_t)e.begin;
    if (e.type > 2) die("%s: %s: its type is %s, not F32, F16 or BF16", st->path, name, type);
    if (e.dimensions < 1 || e.dimensions > 2 || e.elements < 1 || e.size[0] > INT32_MAX || e.size[1] > INT32_MAX)
        die("%s: %s: not a vector or matrix", st->path, name);
    const bool matrix = e.dimensions == 2;
    *t = (Tensor){matrix ? (int)e.size[0] : 1, (int)e.size[matrix], NULL, NULL, NULL};
    if (sizeof(real) == 4 && !strcmp(type, "F32") && (uintptr_t)from % 4 == 0) {
        t->data = (void *)from; /* a private mapping: writing is ours */
        return true;
    }
    t->data = allocate(size_of(*t) * sizeof(real));
    for (size_t i = 0; i < size_of(*t); i++) t->data[i] = (real)element_at(from, type, i);
    return true;
}
/* The tensors of a folder: in model.safetensors, or in the parts that model.safetensors.index.json names. */
typedef struct { const char *path; Safetensors *part; int parts; } TensorFiles; /* path: for messages */

/* What to do about a folder without weights that can be read. Of other formats transformers 5 reads PyTorch's. */
_Noreturn static inline void weights_missing(const char *folder) {
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5",
                                         "flax_model.msgpack", "bert_model.ckpt.index", "model.ckpt.index",
                                         "model.fp16.safetensors", "adapter_model.safetensors", "model.onnx"};
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        if (!file_exists(format("%s/%s", folder, others[k]))) continue;
        if (k < 2)
            die("%s: no model.safetensors, only %s: convert it, in Python with transformers: "
                "BertForMaskedLM.from_pretrained(\"%s\").save_pretrained(\"%s\")", folder, others[k], folder, folder);
        die("%s: no model.safetensors, only %s, which is not read", folder, others[k]);
    }
    die("%s/model.safetensors: %s", folder, strerror(ENOENT));
}
/* Which part, by the index, holds what: a name of the folder's own. */
static inline void parts_open(TensorFiles *files, const char *folder, Text map) {
    Texts names = {0};
    Text key, value, entry;
    for (size_t position = 0; json_next(map, &position, &key, &value);) {
        if (!json_is_string(value)) die("%s: weight_map has a value that is not a string", files->path);
        const Text name = json_string(value);
        if (!name.size || memchr(name.data, '/', name.size))
            die("%s: '%s' is not the name of a file beside it", files->path, text_line(name));
        if (!texts_contain(&names, name)) texts_push(&names, name);
    }
    files->part = allocate(sizeof *files->part * (size_t)(names.count + 1));
    for (int k = 0; k < names.count; k++)
        files->part[files->parts++] = safetensors_open(format("%s/%s", folder, text_string(names.at[k])));
    for (size_t position = 0; json_next(map, &position, &key, &value);)
        for (int k = 0; k < names.count; k++)
            if (text_equal(names.at[k], json_string(value)) &&
                !json_member(files->part[k].header, text_string(json_key(key)), &entry))
                die("%s: %s is not in %s", files->path, text_line(json_key(key)), files->part[k].path);
}
static inline TensorFiles tensor_files_open(const char *folder) {
    const char *whole = format("%s/model.safetensors", folder), *index = format("%s.index.json", whole);
    TensorFiles files = {.path = whole};
    Text map;
    if (file_exists(whole) || !file_exists(index)) {
        if (!file_exists(whole)) weights_missing(folder);
        files.part = allocate(sizeof *files.part);
        files.part[files.parts++] = safetensors_open(whole);
        return files;
    }
    files.path = index;
    if (!json_member(read_json_object(index), "weight_map", &map) || !json_is_object(map))
        die("%s: no weight_map", index);
    parts_open(&files, folder, map);
    return files;
}
static inline bool tensor_files_find(const TensorFiles *files, const char *name, Tensor *t) {
    const Safetensors *holds = NULL;
    Text entry;
    for (int k = 0; k < files->parts; k++) {
        if (!json_member(files->part[k].header, name, &entry)) continue;
        if (holds) die("%s: %s is in %s, too", files->part[k].path, name, holds->path);
        holds = &files->part[k];
    }
    return holds && safetensors_find(holds, name, t);
}
static inline void tensor_files_close(TensorFiles *files) {
    for (int k = 0; k < files->parts; k++) unmap_file(files->part[k].file);
    files->parts = 0;
}
/* As safetensors_find; exits unless the tensor is there and its shape matches. */
static inline Tensor safetensors_get(const Safetensors *st, const char *name, int rows, int cols) {
    Tensor t;
    if (!safetensors_find(st, name, &t)) die("%s: no tensor %s", st->path, name);
    if (t.rows != rows || t.cols != cols)
        die("%s: %s is (%d, %d), expected (%d, %d)", st->path, name, t.rows, t.cols, rows, cols);
    return t;
}
/* A whole list of tensors, into the memory that they have. */
static inline void safetensors_read(const Safetensors *st, Parameters list) {
    for (int i = 0; i < list.count; i++) {
        Tensor *t = list.at[i].tensor;
        memcpy(t->data, safetensors_get(st, list.at[i].name, t->rows, t->cols).data, size_of(*t) * sizeof(real));
    }
}
static inline Text safetensors_metadata(const Safetensors *st, const char *name) { /* a string; empty if absent */
    Text metadata, value;
    if (!json_member(st->header, "__metadata__", &metadata) || !json_member(metadata, name, &value) ||
        !json_is_string(value))
        return (Text){"", 0};
    return json_string(value);
}
static inline void write_f32(FILE *stream, const real *x, size_t count) {
    float buffer[1024];
    for (size_t done = 0, part; done < count; done += part) {
        part = count - done < 1024 ? count - done : 1024;
        for (size_t i = 0; i < part; i++) buffer[i] = (float)x[done + i];
        fwrite(buffer, sizeof *buffer, part, stream);
    }
}
/* Writes tensors, and metadata (the text of a JSON object of strings). Biases and gains have one dimension. */
static inline void safetensors_write(const char *path, Parameters list, const char *metadata) {
    Mark before = mark();
    Output out = output_open(path);
    size_t offset = 0;
    fprintf(out.stream, "%8s{\"__metadata__\":%s", "", metadata); /* the first 8 bytes follow at the end */
    for (int i = 0; i < list.count; i++) {
        const Tensor *t = list.at[i].tensor;
        const size_t end = offset + 4 * size_of(*t);
        fprintf(out.stream, ",%s:{\"dtype\":\"F32\",\"shape\":", json_quote(list.at[i].name));
        if (list.at[i].kind == MATRIX) fprintf(out.stream, "[%d,%d]", t->rows, t->cols);
        else fprintf(out.stream, "[%d]", t->cols);
        fprintf(out.stream, ",\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    fputc('}', out.stream);
    while (ftell(out.stream) % 8 > 0) fputc(' ', out.stream); /* so that the elements are aligned */
    const uint64_t length = (uint64_t)ftell(out.stream) - 8;
    for (int i = 0; i < list.count; i++)
        write_f32(out.stream, list.at[i].tensor->data, size_of(*list.at[i].tensor));
    fseek(out.stream, 0, SEEK_SET); /* not rewind: it forgets that a write failed */
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 0xFF), out.stream);
    output_close(out);
    release(before);
}

#endif
