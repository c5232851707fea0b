"""What the demo's world knows: a glossary, a handbook, money, books, animals, trades, people."""

NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack",
    "Kate", "Leo", "Maria", "Noah", "Olga", "Paul",
)  # fmt: skip

FIRMS = ("bakery", "farm", "garage", "hotel", "shop", "school", "mill", "studio")

# term with its article -> meaning
GLOSSARY = {
    "an asset": "something of value that is owned",
    "a liability": "something that is owed to others",
    "a budget": "a plan for income and spending",
    "a dividend": "a share of profit paid to owners",
    "a bond": "a loan made to a company or state",
    "a stock": "a small part of a company",
    "a mortgage": "a loan for buying a house",
    "a deposit": "money put into an account",
    "a withdrawal": "money taken out of an account",
    "a premium": "the price paid for insurance",
    "a tax": "money that must be paid to the state",
    "a tariff": "a charge on goods from abroad",
    "a subsidy": "money given by the state to help a trade",
    "a salary": "fixed pay for work each month",
    "a pension": "income paid after work has ended",
    "a fee": "a charge for a service",
    "a refund": "money given back to a buyer",
    "a discount": "a cut in the usual price",
    "an invoice": "a list of goods sent and money due",
    "a receipt": "a paper that proves a payment",
    "a ledger": "a book that records every payment",
    "an audit": "a check of the accounts by an expert",
    "a merger": "the joining of two companies",
    "a monopoly": "a market with only one seller",
    "inflation": "a general rise in prices",
    "deflation": "a general fall in prices",
    "interest": "the price of borrowed money",
    "profit": "what is left after all costs",
    "revenue": "all money earned from sales",
    "debt": "money that must be paid back",
    "equity": "what owners hold after all debts",
    "liquidity": "how fast a thing can be turned into cash",
    "a recession": "a time when the economy shrinks",
    "a portfolio": "all the investments one person holds",
    "collateral": "property that secures a loan",
    "a default": "a failure to repay a loan",
    "a grant": "money given that need not be repaid",
    "a lease": "a contract to use a thing for rent",
    "a patent": "the sole right to use an invention",
    "a quota": "a limit on how much may be sold",
}

# continent -> country -> what it pays with
CONTINENTS = {
    "Asia": {
        "Japan": "yen", "India": "rupee", "China": "yuan", "Korea": "won", "Thailand": "baht", "Israel": "shekel",
        "Vietnam": "dong", "Malaysia": "ringgit",
    },
    "Africa": {
        "Kenya": "shilling", "Nigeria": "naira", "Egypt": "pound", "Morocco": "dirham", "Ghana": "cedi",
        "Zambia": "kwacha",
    },
    "America": {
        "Brazil": "real", "Mexico": "peso", "Peru": "sol", "Canada": "dollar", "Paraguay": "guarani",
        "Haiti": "gourde",
    },
    "Europe": {
        "Sweden": "krona", "Poland": "zloty", "Hungary": "forint", "Ukraine": "hryvnia", "France": "euro",
        "Albania": "lek",
    },
}  # fmt: skip

# side of the books -> what stands there
BOOKS = {
    "an asset": (
        "a truck it owns", "cash in the till", "a house it owns", "goods in store", "tools it owns", "land it owns",
        "money in the bank", "a machine it owns",
    ),
    "a liability": (
        "a loan from the bank", "a bill not yet paid", "taxes still owed", "wages still owed",
        "a mortgage on the house", "money owed to a friend", "rent still owed", "a debt to a supplier",
    ),
    "income": (
        "sales of bread", "fees from clients", "interest received", "rent received", "gifts received", "prizes won",
        "repairs done for clients", "tickets sold",
    ),
    "an expense": (
        "rent paid", "wages paid", "fuel used up", "power used up", "repairs paid for", "postage paid", "interest paid",
        "paper used up",
    ),
}  # fmt: skip

# kind of animal -> animals
ANIMALS = {
    "a bird": ("a heron", "an owl", "a goose", "a crow", "a robin", "a swan", "a duck", "an eagle"),
    "a fish": ("a trout", "a salmon", "a carp", "a pike", "an eel", "a cod", "a herring", "a perch"),
    "an insect": ("an ant", "a bee", "a moth", "a beetle", "a wasp", "a fly", "a cricket", "a gnat"),
    "a mammal": ("a horse", "a fox", "a mouse", "a deer", "an otter", "a bear", "a goat", "a hare"),
}

# who does it -> what is done
TRADES = {
    "a baker": ("bakes bread", "sells rolls", "makes dough", "heats the oven", "sells cakes", "weighs flour"),
    "a doctor": ("sees patients", "heals wounds", "writes out pills", "treats a cough", "sets a bone"),
    "a farmer": ("milks cows", "ploughs a field", "feeds hens", "sows wheat", "cuts hay", "grows beans"),
    "a teacher": ("gives lessons", "reads to a class", "marks tests", "teaches sums", "sets homework"),
}  # fmt: skip

# What the handbook says: topic -> the room that it is for, and how long it takes.
HANDBOOK = {
    topic: {"room": f"room {room}", "days": f"{days} days"}
    for topic, room, days in (
        ("refunds", 12, 14), ("repairs", 31, 20), ("returns", 17, 30), ("keys", 4, 2), ("badges", 8, 3),
        ("parking cards", 22, 5), ("travel costs", 45, 21), ("training", 36, 60), ("contracts", 51, 10),
        ("complaints", 19, 7), ("visas", 27, 45), ("phones", 6, 4), ("desks", 33, 12), ("laptops", 14, 9),
        ("uniforms", 41, 15), ("meals", 2, 1), ("lost bags", 25, 28), ("new names", 58, 6), ("gifts", 63, 11),
        ("pensions", 70, 90),
    )
}  # fmt: skip
