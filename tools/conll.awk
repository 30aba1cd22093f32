# Prints the facts of a set of the small world as tagged sentences, in CoNLL's form: awk -v set=train -f tools/conll.awk
# They are told in the phrasings of prompts.txt, in turn, which no LM has read.

# The words of an entity, tagged with its type.
function entity(text, type,    word, n, i) {
    n = split(text, word, " ")
    for (i = 1; i <= n; i++) print word[i] "\t" (i > 1 ? "I-" : "B-") type
}
# A phrasing with the fact in the places of [X] and [Y].
function tell(phrasing, subject, object, subject_type, object_type,    word, words, w) {
    words = split(phrasing, word, " ")
    for (w = 1; w <= words; w++) {
        if (word[w] == "[X]") entity(subject, subject_type)
        else if (word[w] == "[Y]") entity(object, object_type)
        else print word[w] "\tO"
    }
    print ""
}
function field(json, name) {
    sub(".*\"" name "\": \"", "", json)
    sub(/".*/, "", json)
    return json
}
BEGIN {
    types["capital"] = "country city"
    types["capital_of"] = "city country"
    types["continent"] = "country continent"
    types["language"] = "country language"
    types["currency"] = "country currency"
    types["shares_border"] = "country country"
    types["country_of_city"] = "city country"
    types["us_state"] = "city state"
    types["headquarters"] = "company city"
    types["manufacturer"] = "product company"
    types["symbol"] = "element symbol"
    types["animal_class"] = "animal class"
    types["author"] = "book person"
    types["composer"] = "music person"
    types["director"] = "film person"
    types["native_language"] = "person language"
    types["occupation"] = "person occupation"
    types["instrument"] = "person instrument"
    types["sport"] = "person sport"
    types["position"] = "person position"
    while ((getline line <"data/relations.jsonl") > 0) {
        relation = field(line, "relation")
        split(types[relation], type, " ")
        for (forms = 0; (getline phrasing[forms] <("data/" relation "/prompts.txt")) > 0;) forms++
        for (n = 0; (getline line <("data/" relation "/" set ".jsonl")) > 0; n++)
            tell(phrasing[n % forms], field(line, "sub_label"), field(line, "obj_label"), type[1], type[2])
    }
}
