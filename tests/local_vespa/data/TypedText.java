import com.yahoo.component.chain.Chain;
import com.yahoo.language.opennlp.OpenNlpLinguistics;
import com.yahoo.language.process.StemMode;
import com.yahoo.prelude.Index;
import com.yahoo.prelude.IndexFacts;
import com.yahoo.prelude.IndexModel;
import com.yahoo.prelude.SearchDefinition;
import com.yahoo.prelude.query.CompositeItem;
import com.yahoo.prelude.query.HasIndexItem;
import com.yahoo.prelude.query.IntItem;
import com.yahoo.prelude.query.Item;
import com.yahoo.prelude.query.TermItem;
import com.yahoo.prelude.querytransform.CJKSearcher;
import com.yahoo.prelude.querytransform.NormalizingSearcher;
import com.yahoo.prelude.querytransform.StemmingSearcher;
import com.yahoo.search.Query;
import com.yahoo.search.Result;
import com.yahoo.search.Searcher;
import com.yahoo.search.query.parser.ParserEnvironment.ParserSettings;
import com.yahoo.search.querytransform.LowercasingConfig;
import com.yahoo.search.querytransform.VespaLowercasingSearcher;
import com.yahoo.search.schema.SchemaInfo;
import com.yahoo.search.searchchain.Execution;
import com.yahoo.search.yql.MinimalQueryInserter;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Vespa's own parsers over many texts: a line is a query string with yql, text and model.language; it is answered by
 * the query tree as nested JSON arrays (after stemming, accents dropped, in lower case), or by {"error": reason}. The
 * fields are default and title (text), colour (matched as a whole) and price (a number). Used by make_typed_text.py.
 */
public class TypedText {
    public static void main(String[] arguments) {
        Logger.getLogger("").setLevel(Level.OFF);
        var fields = new SearchDefinition("item");
        for (String name : new String[] {"default", "title", "colour", "price"}) fields.addIndex(field(name));
        var facts = new IndexFacts(new IndexModel(fields));
        var schemas = SchemaInfo.createStub(new ParserSettings(true, false, true, true)); // as ContainerSearch sets them
        var linguistics = new OpenNlpLinguistics();
        var lowercasing = new VespaLowercasingSearcher(new LowercasingConfig.Builder().build());
        Searcher end = new Searcher() {
            @Override public Result search(Query query, Execution execution) { return new Result(query); }
        };
        var chain = new Chain<Searcher>(new MinimalQueryInserter(), new CJKSearcher(), new StemmingSearcher(linguistics),
                                        new NormalizingSearcher(linguistics), lowercasing, end);
        Scanner in = new Scanner(System.in, StandardCharsets.UTF_8);
        while (in.hasNextLine()) {
            try {
                var query = new Query.Builder().setSchemaInfo(schemas).setRequest("?" + in.nextLine()).build();
                var context = Execution.Context.createContextStub(null, facts, schemas, linguistics);
                var result = new Execution(chain, context).search(query);
                if (result.hits().getError() != null) throw new IllegalArgumentException("" + result.hits().getError());
                System.out.println(shown(query.getModel().getQueryTree().getRoot()));
            } catch (Exception e) {
                System.out.println("{\"error\": " + quoted("" + e.getMessage()) + "}");
            }
        }
        System.exit(0);
    }

    static Index field(String name) {
        Index index = new Index(name);
        if (name.equals("colour")) index.setExact(true, null);
        index.setLowercase(!name.equals("price"));
        boolean text = !name.equals("colour") && !name.equals("price");
        index.setStemMode(text ? StemMode.BEST : StemMode.NONE);
        index.setNormalize(text);
        if (!text) index.addCommand("attribute");
        return index;
    }

    static String shown(Item item) {
        List<String> parts = new ArrayList<>();
        parts.add(quoted(item.getClass().getSimpleName().replace("Item", "")));
        if (item instanceof TermItem term) {
            parts.add(quoted(((HasIndexItem) item).getIndexName()));
            parts.add(quoted(term instanceof IntItem number ? number.getNumber() : term.getIndexedString()));
        }
        if (item.getWeight() != 100) parts.add("" + item.getWeight());
        if (item instanceof CompositeItem composite) for (Item child : composite.items()) parts.add(shown(child));
        return "[" + String.join(", ", parts) + "]";
    }

    static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\t", "\\t").replace("\n", "\\n") + "\"";
    }
}
