"""The words of printed papers, by language.

What an invoice says of its steps was written in English when it was issued,
and never changes; `translate` knows these sentences and says them again.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

ENGLISH = "en"

_WORDS: Mapping[str, tuple[str, ...]] = {
    # key: en, de, fr, es, it, nl
    "invoice": ("Invoice", "Rechnung", "Facture", "Factura", "Fattura", "Factuur"),
    "draft": ("Draft", "Entwurf", "Brouillon", "Borrador", "Bozza", "Concept"),
    "void": ("VOID", "STORNIERT", "ANNULÉE", "ANULADA", "ANNULLATA", "GEANNULEERD"),
    "credit_note": ("Credit note", "Gutschrift", "Avoir", "Nota de crédito", "Nota di credito", "Creditnota"),
    "number": ("Number", "Nummer", "Numéro", "Número", "Numero", "Nummer"),
    "date": ("Date", "Datum", "Date", "Fecha", "Data", "Datum"),
    "due": ("Due", "Fällig", "Échéance", "Vencimiento", "Scadenza", "Vervaldatum"),
    "period": ("Period", "Zeitraum", "Période", "Periodo", "Periodo", "Periode"),
    "customer": ("Customer", "Kunde", "Client", "Cliente", "Cliente", "Klant"),
    "replaces": ("Replaces", "Ersetzt", "Remplace", "Sustituye a", "Sostituisce", "Vervangt"),
    "for_invoice": (
        "For invoice",
        "Zu Rechnung",
        "Sur la facture",
        "De la factura",
        "Per la fattura",
        "Bij factuur",
    ),
    "reason": ("Reason", "Grund", "Motif", "Motivo", "Motivo", "Reden"),
    "tax_id": ("Tax number", "Steuernummer", "Nº fiscal", "NIF", "Partita IVA", "Btw-nummer"),
    "description": (
        "Description",
        "Beschreibung",
        "Description",
        "Descripción",
        "Descrizione",
        "Omschrijving",
    ),
    "quantity": ("Quantity", "Menge", "Quantité", "Cantidad", "Quantità", "Aantal"),
    "unit_price": (
        "Unit price",
        "Einzelpreis",
        "Prix unitaire",
        "Precio unitario",
        "Prezzo unitario",
        "Prijs",
    ),
    "amount": ("Amount", "Betrag", "Montant", "Importe", "Importo", "Bedrag"),
    "subtotal": ("Subtotal", "Zwischensumme", "Sous-total", "Subtotal", "Subtotale", "Subtotaal"),
    "included": ("included", "enthalten", "compris", "incluido", "incluso", "inbegrepen"),
    "total": ("Total", "Gesamtbetrag", "Total", "Total", "Totale", "Totaal"),
    "prepaid": (
        "Paid by credits",
        "Aus Guthaben bezahlt",
        "Réglé par crédits",
        "Pagado con crédito",
        "Pagato con crediti",
        "Betaald uit tegoed",
    ),
    "to_pay": ("To pay", "Zu zahlen", "À payer", "A pagar", "Da pagare", "Te betalen"),
    "annex": ("Annex", "Anlage", "Annexe", "Anexo", "Allegato", "Bijlage"),
    "details": (
        "How the amounts arose",
        "Wie die Beträge entstehen",
        "Calcul des montants",
        "Cálculo de los importes",
        "Calcolo degli importi",
        "Berekening van de bedragen",
    ),
    "usage": (
        "Usage by group",
        "Verbrauch nach Gruppen",
        "Consommation par groupe",
        "Consumo por grupo",
        "Consumo per gruppo",
        "Verbruik per groep",
    ),
    "left_out": (
        "{0} more groups",
        "{0} weitere Gruppen",
        "{0} autres groupes",
        "{0} grupos más",
        "{0} altri gruppi",
        "{0} andere groepen",
    ),
    "units": ("units", "Einheiten", "unités", "unidades", "unità", "eenheden"),
    "rounded_up": (
        "rounded up",
        "aufgerundet",
        "arrondi vers le haut",
        "redondeado al alza",
        "per eccesso",
        "naar boven",
    ),
    "rounded_down": (
        "rounded down",
        "abgerundet",
        "arrondi vers le bas",
        "redondeado a la baja",
        "per difetto",
        "naar beneden",
    ),
    "rounded_to_the_nearest": ("rounded", "gerundet", "arrondi", "redondeado", "arrotondato", "afgerond"),
    "page": ("Page", "Seite", "Page", "Página", "Pagina", "Pagina"),
}
LANGUAGES = ("en", "de", "fr", "es", "it", "nl")


class _Sentence(NamedTuple):
    """A sentence of the pricing, and how each other language says it; {0} and so on are what varies."""

    pattern: re.Pattern[str]
    texts: tuple[str, ...]


def _sentence(pattern: str, *texts: str) -> _Sentence:
    return _Sentence(re.compile(pattern, re.DOTALL), texts)


# In the order in which they are tried; texts are de, fr, es, it, nl.
_SENTENCES = (
    _sentence(
        r"(.+), reported late",
        "{0}, nachgemeldet",
        "{0}, déclaré tardivement",
        "{0}, notificado tarde",
        "{0}, comunicato in ritardo",
        "{0}, nagemeld",
    ),
    _sentence(
        r"(.+), cut short",
        "{0}, verkürzt",
        "{0}, écourté",
        "{0}, acortado",
        "{0}, abbreviato",
        "{0}, ingekort",
    ),
    _sentence(
        r"(.+), so far",
        "{0}, bisher",
        "{0}, à ce jour",
        "{0}, hasta ahora",
        "{0}, finora",
        "{0}, tot nu toe",
    ),
    _sentence(
        r"Minimum of ([\d.]+)",
        "Mindestbetrag von {0}",
        "Minimum de {0}",
        "Mínimo de {0}",
        "Minimo di {0}",
        "Minimum van {0}",
    ),
    _sentence(
        r"tier (\d+), from ([\d.]+) to ([\d.]+)(, flat amount)?",
        "Stufe {0}, von {1} bis {2}{flat}",
        "palier {0}, de {1} à {2}{flat}",
        "tramo {0}, de {1} a {2}{flat}",
        "fascia {0}, da {1} a {2}{flat}",
        "staffel {0}, van {1} tot {2}{flat}",
    ),
    _sentence(
        r"tier (\d+), from ([\d.]+) on(, flat amount)?",
        "Stufe {0}, ab {1}{flat}",
        "palier {0}, à partir de {1}{flat}",
        "tramo {0}, desde {1}{flat}",
        "fascia {0}, da {1}{flat}",
        "staffel {0}, vanaf {1}{flat}",
    ),
    _sentence(r"units", "Einheiten", "unités", "unidades", "unità", "eenheden"),
    _sentence(
        r"free units",
        "Freieinheiten",
        "unités gratuites",
        "unidades gratuitas",
        "unità gratuite",
        "gratis eenheden",
    ),
    _sentence(
        r"whole period",
        "ganzer Zeitraum",
        "période entière",
        "periodo completo",
        "periodo intero",
        "hele periode",
    ),
    _sentence(
        r"(\d+) of (\d+) seconds",
        "{0} von {1} Sekunden",
        "{0} secondes sur {1}",
        "{0} de {1} segundos",
        "{0} di {1} secondi",
        "{0} van {1} seconden",
    ),
    _sentence(
        r"packages of ([\d.]+)",
        "Pakete zu {0}",
        "lots de {0}",
        "paquetes de {0}",
        "pacchetti da {0}",
        "pakketten van {0}",
    ),
    _sentence(
        r"metered amount",
        "gemessener Betrag",
        "montant mesuré",
        "importe medido",
        "importo misurato",
        "gemeten bedrag",
    ),
    _sentence(
        r"free amount",
        "freier Betrag",
        "montant gratuit",
        "importe gratuito",
        "importo gratuito",
        "vrij bedrag",
    ),
    _sentence(
        r"free events",
        "freie Ereignisse",
        "événements gratuits",
        "eventos gratuitos",
        "eventi gratuiti",
        "gratis gebeurtenissen",
    ),
    _sentence(
        r"fee per event",
        "Gebühr je Ereignis",
        "frais par événement",
        "tarifa por evento",
        "tariffa per evento",
        "kosten per gebeurtenis",
    ),
    _sentence(
        r"all others", "alle übrigen", "tous les autres", "todos los demás", "tutti gli altri", "alle overige"
    ),
    _sentence(
        r"([\d.]+) percent discount",
        "{0} Prozent Rabatt",
        "remise de {0} pour cent",
        "descuento del {0} por ciento",
        "sconto del {0} per cento",
        "{0} procent korting",
    ),
    _sentence(
        r"([\d.]+) percent", "{0} Prozent", "{0} pour cent", "{0} por ciento", "{0} per cento", "{0} procent"
    ),
    _sentence(
        r"at most ([\d.]+)",
        "höchstens {0}",
        "au plus {0}",
        "como máximo {0}",
        "al massimo {0}",
        "ten hoogste {0}",
    ),
    _sentence(
        r"at least ([\d.]+)",
        "mindestens {0}",
        "au moins {0}",
        "como mínimo {0}",
        "almeno {0}",
        "ten minste {0}",
    ),
    _sentence(
        r"charged in the period",
        "im Zeitraum berechnet",
        "facturé sur la période",
        "facturado en el periodo",
        "fatturato nel periodo",
        "berekend in de periode",
    ),
    _sentence(
        r"billed before",
        "bereits berechnet",
        "déjà facturé",
        "ya facturado",
        "già fatturato",
        "eerder berekend",
    ),
)
_CONVERSION = re.compile(
    r"(-?[\d.]+)(?: times ([\d.]+))?(?: divided by ([\d.]+))?"
    r"(?:, rounded (up|down|to the nearest))?: (-?[\d.]+) units"
)
_FLAT = (", Grundbetrag", ", part fixe", ", parte fija", ", parte fissa", ", vast bedrag")


def word(key: str, language: str) -> str:
    """Give a word of the paper in one of LANGUAGES."""
    return _WORDS[key][LANGUAGES.index(language)]


def translate(text: str, language: str) -> str:
    """Say a sentence of the pricing in another language; what it does not know stays as it is."""
    if language == ENGLISH:
        return text
    place = LANGUAGES.index(language) - 1
    for pattern, texts in _SENTENCES:
        found = pattern.fullmatch(text)
        if found is not None:
            groups = list(found.groups())
            flat = _FLAT[place] if groups and groups[-1] == ", flat amount" else ""
            return texts[place].format(*groups, flat=flat)
    conversion = _CONVERSION.fullmatch(text)
    return _converted(conversion, language) if conversion else text


def _converted(found: re.Match[str], language: str) -> str:
    quantity, factor, divisor, rounding, units = found.groups()
    said = (
        quantity
        + (f" \N{MULTIPLICATION SIGN} {factor}" if factor else "")
        + (f" ÷ {divisor}" if divisor else "")
    )
    if rounding:
        said += f", {word('rounded_' + rounding.replace(' ', '_'), language)}"
    return f"{said}: {units} {word('units', language)}"
