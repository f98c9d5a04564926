package mrse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.yahoo.document.DataType;
import com.yahoo.document.Document;
import com.yahoo.document.DocumentType;
import com.yahoo.document.DocumentUpdate;
import com.yahoo.document.datatypes.Array;
import com.yahoo.document.datatypes.FieldValue;
import com.yahoo.document.datatypes.StringFieldValue;
import com.yahoo.document.update.FieldUpdate;
import com.yahoo.vespa.indexinglanguage.expressions.Expression;
import com.yahoo.vespa.indexinglanguage.expressions.ScriptExpression;

/** What an indexing statement makes of a document's texts, and of an update that assigns some of them: a text, or null for no change. */
class Indexing {

    private static final DataType texts = DataType.getArray(DataType.STRING);

    /** entry: statement, as a schema has it, and writes: {update: whether it is one, fields: strings and arrays of strings}. */
    static ArrayNode run(JsonNode entry) throws Exception {
        var statement = entry.get("statement").asText() + " made";
        var script = ScriptExpression.fromString("{ clear_state | guard { " + statement + "; } }"); // as IndexingScript writes it
        var made = Judge.json.createArrayNode();
        for (JsonNode write : entry.get("writes")) {
            var type = new DocumentType("item");
            type.addField("made", DataType.STRING);
            for (JsonNode each : entry.get("writes"))
                each.get("fields").fields().forEachRemaining(field -> {
                    if (!type.hasField(field.getKey())) type.addField(field.getKey(), field.getValue().isArray() ? texts : DataType.STRING);
                });
            if (write.path("update").asBoolean()) {
                var update = new DocumentUpdate(type, "id:item:item::a");
                write.get("fields").fields().forEachRemaining(
                        field -> update.addFieldUpdate(FieldUpdate.createAssign(type.getField(field.getKey()), value(field.getValue()))));
                var indexed = Expression.execute(script, update);
                var field = indexed == null ? null : indexed.getFieldUpdate("made");
                made.add(field == null ? null : field.getValueUpdate(0).getValue().toString());
            } else {
                var document = new Document(type, "id:item:item::a");
                write.get("fields").fields().forEachRemaining(field -> document.setFieldValue(field.getKey(), value(field.getValue())));
                var indexed = Expression.execute(script, document).getFieldValue("made");
                made.add(indexed == null ? null : indexed.toString());
            }
        }
        return made;
    }

    private static FieldValue value(JsonNode json) {
        if (!json.isArray()) return new StringFieldValue(json.asText());
        var array = new Array<StringFieldValue>(texts);
        json.forEach(element -> array.add(new StringFieldValue(element.asText())));
        return array;
    }
}
